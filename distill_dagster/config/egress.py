"""Where records of a source may be sent, and what happens to personal data and secrets on the way."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from distill_dagster.config.detector import DetectorOptions
from distill_dagster.config.strict import Strict, identity, later

#: Weights on this machine; a server that the owner of the data runs; anybody else's.
EndpointClass = Literal["local", "own_network", "third_party"]
#: Send the question as it is, send it with tags in place of what was found, or do not send it.
Action = Literal["send", "mask", "refuse"]

CLASSES: tuple[EndpointClass, ...] = ("local", "own_network", "third_party")
#: Backends that answer on this machine.
LOCAL_BACKENDS = ("transformers", "vllm", "recorded")


class ByClass(Strict):
    """What happens to a finding, by where the question would go."""

    local: Action = Field(default="send", description="The teacher's weights are on this machine")
    own_network: Action = Field(default="send", description="The teacher is a server of your own")
    third_party: Action = Field(default="mask", description="The teacher is somebody else's")


class EgressOptions(Strict):
    """What the egress gate does with questions made of this source's records, before anything is sent."""

    allow: list[EndpointClass] = Field(
        default_factory=lambda: list(CLASSES), description="Where records of this source may be sent at all"
    )
    licences: dict[str, list[EndpointClass]] = Field(
        default_factory=dict, description="Where records under one licence may be sent, where that is narrower"
    )
    pii: ByClass = Field(default_factory=ByClass, description="Personal data: send, mask or refuse")
    detector: DetectorOptions | None = later(
        None,
        description="presidio beside the built-in patterns, where personal data is masked or refused",
    )
    secrets: ByClass = Field(
        default_factory=lambda: ByClass(own_network="mask"), description="Keys and passwords: send, mask or refuse"
    )


@dataclass(frozen=True)
class Policy:
    """What a source says about one class of endpoint.

    Attributes:
        endpoint: The class.
        allowed: Whether records may go there at all.
        barred: Licences whose records may not.
        pii: What happens to questions with personal data.
        secrets: What happens to questions with secrets.
        detector: What finds personal data beside the built-in patterns, where it is not sent as it is.
    """

    endpoint: EndpointClass
    allowed: bool
    barred: tuple[str, ...]
    pii: Action
    secrets: Action
    detector: DetectorOptions | None = None

    def identity(self) -> dict[str, Any]:
        """What of it can change a question or an answer; empty where every question is sent as it is."""
        said: dict[str, Any] = {}
        if not self.allowed:
            said["allowed"] = False
        if self.barred:
            said["barred"] = list(self.barred)
        for name in ("pii", "secrets"):
            if getattr(self, name) != "send":
                said[name] = getattr(self, name)
        if self.detector is not None:
            said["detector"] = identity(self.detector)
        return said


def policy(options: EgressOptions, endpoint: EndpointClass) -> Policy:
    """The part of a source's terms that concerns one class of endpoint."""
    return Policy(
        endpoint=endpoint,
        allowed=endpoint in options.allow,
        barred=tuple(sorted(name for name, classes in options.licences.items() if endpoint not in classes)),
        pii=getattr(options.pii, endpoint),
        secrets=getattr(options.secrets, endpoint),
        detector=options.detector if getattr(options.pii, endpoint) != "send" else None,
    )


def endpoint_class(teacher: Any) -> EndpointClass:
    """Where questions to a teacher go: what it declares, else what its backend and address say.

    An address of this machine counts as local: declare `egress_class: third_party` where it only passes questions on.
    """
    if teacher.egress_class is not None:
        return teacher.egress_class
    endpoint = getattr(teacher, "endpoint", None)
    url = getattr(endpoint, "url", None) or getattr(teacher, "url", None)
    if url is None:
        return "local" if teacher.backend in LOCAL_BACKENDS else "third_party"
    return class_of_address(url)


def class_of_address(url: str) -> EndpointClass:
    """`local` for an address of this machine, `third_party` for any other."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return "local" if ipaddress.ip_address(host).is_loopback else "third_party"
    except ValueError:
        return "local" if host == "localhost" or host.endswith(".localhost") else "third_party"
