"""The egress gate: what of a question may leave, decided before the journal sees it.

Terms first (may records of this source, under this licence, go to this class of endpoint?), then what is found in the
text. A question that is masked is asked, journalled and keyed in its masked form; the original is not sent, nor kept
with the call. One that is refused reaches neither the journal nor the teacher.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from distill_dagster.config.egress import Policy
from distill_dagster.privacy.mask import VERSION, Detector, Masker, find, is_secret
from distill_dagster.records.identity import digest
from distill_dagster.teachers.base import Request, Response

#: What the failure of a refused question starts with; the reason follows.
REFUSED = "egress."


@dataclass(frozen=True, slots=True)
class Look:
    """What the gate decided about one question.

    Attributes:
        verdict: `send`, `mask` or `refuse`.
        reason: Why it was masked or refused: terms, licence, secrets, pii. `allowed`: something was found, and the
            policy lets it pass. None: nothing was found.
        findings: How often each kind was found; never what was found.
        request: The question as it may be asked; None where it is refused.
    """

    verdict: str
    reason: str | None
    findings: dict[str, int]
    request: Request | None


class Gate:
    """The gate of one source before one teacher.

    Args:
        policy: The source's terms.
        detector: Finds personal data beside the built-in patterns.
        finds: Identity of the detector.

    Attributes:
        policy: The source's terms for the teacher's class of endpoint.
        version: Digest of the policy and of what is found: 16 hex digits.
    """

    def __init__(
        self, policy: Policy, detector: Detector | None = None, finds: Mapping[str, Any] | None = None
    ) -> None:
        self.policy, self._detector = policy, detector
        said: dict[str, Any] = {"endpoint": policy.endpoint, "policy": policy.identity(), "finds": VERSION}
        if finds is not None:
            said["detector"] = dict(finds)
        self.version = digest(said)[:16]

    def look(self, request: Request, licences: Collection[str | None] | None) -> Look:
        """Decide about one question.

        Args:
            request: The question.
            licences: Licences of the records it was made of; None where nobody knows them. An unknown licence is
                barred as soon as any is.
        """
        texts = [text for message in request.messages for name, text in message.items() if name != "role"]
        found = Counter(one.kind for text in texts for one in find(text, detector=self._detector))
        findings = dict(sorted(found.items()))
        policy = self.policy
        if not policy.allowed:
            return Look("refuse", "terms", findings, None)
        if policy.barred and (not licences or any(name is None or name in policy.barred for name in licences)):
            return Look("refuse", "licence", findings, None)
        actions = {"secrets": policy.secrets, "pii": policy.pii}
        sorts = {"secrets": any(map(is_secret, found)), "pii": any(not is_secret(kind) for kind in found)}
        for sort, action in actions.items():
            if sorts[sort] and action == "refuse":
                return Look("refuse", sort, findings, None)
        masked = [sort for sort, action in actions.items() if sorts[sort] and action == "mask"]
        if not masked:
            return Look("send", "allowed" if found else None, findings, request)
        masker = Masker(texts, lambda kind: actions["secrets" if is_secret(kind) else "pii"] == "mask", self._detector)
        messages = tuple(
            {name: text if name == "role" else masker.mask(text) for name, text in message.items()}
            for message in request.messages
        )
        return Look("mask", masked[0], findings, replace(request, messages=messages))


def refusal(look: Look) -> Response:
    """What stands in the place of an answer that was never asked for."""
    return Response("", "error", "", 0, 0, failure=f"{REFUSED}{look.reason}")


def status(failure: str | None) -> str:
    """How a question went, by the class of its failure: ok, failed, or refused by the gate."""
    if failure is None:
        return "ok"
    return "refused" if failure.startswith(REFUSED) else "failed"
