"""From a template and a seed to what a model reads.

Templates are Jinja2 source, rendered in an immutable sandbox without escaping. The system turn is rendered from the
template alone: text of a record never reaches the system role, whatever the record says it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, UndefinedError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from distill_dagster.config.styles import STYLES
from distill_dagster.errors import ConfigError
from distill_dagster.records.identity import digest
from distill_dagster.records.messages import text_of

_SANDBOX = ImmutableSandboxedEnvironment(autoescape=False, undefined=StrictUndefined)


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Template:
    return _SANDBOX.from_string(source)


@lru_cache(maxsize=1024)
def reads(source: str) -> frozenset[str]:
    """Names that a template reads."""
    return frozenset(meta.find_undeclared_variables(_SANDBOX.parse(source)))


def render(template: Mapping[str, Any], seed: Mapping[str, Any], *, rationale: bool = False) -> list[dict[str, str]]:
    """The chat `[{role, content}]` that puts a seed to a model.

    The last user turn of the seed goes through the template; earlier turns stand before it as they are, and turns
    of any other role than assistant are user turns.

    Args:
        template: PROMPT row: `system`, `user`, `labels`, `task`, `style`.
        seed: SEED row: `messages`, `context`, `choices`.
        rationale: Given to the templates, for those that ask for a worked answer.

    Raises:
        ConfigError: The template does not compile, or reads a name it is not given.
    """
    turns = list(seed["messages"])
    last = max((at for at, turn in enumerate(turns) if turn["role"] != "assistant"), default=-1)
    labels = list(template.get("labels") or ())
    user = _fill(
        template,
        "user",
        input=text_of(turns[last : last + 1]) if last >= 0 else "",
        labels=labels,
        context=seed.get("context") or "",
        choices=list(seed.get("choices") or ()),
        rationale=rationale,
    )
    chat = []
    if template.get("system"):
        chat.append({"role": "system", "content": _fill(template, "system", labels=labels, rationale=rationale)})
    for turn in turns[: max(last, 0)]:
        role = "assistant" if turn["role"] == "assistant" else "user"
        chat.append({"role": role, "content": text_of([turn])})
    chat.append({"role": "user", "content": user})
    return chat


def put(
    template: Mapping[str, Any], fixed: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[list[dict[str, str]], str]:
    """The chat of a template that works on texts (writes in their manner, judges them), and the mark of its fences.

    Every text of `given` is set between fences that carry a mark. The mark is a digest of all of them, so no text can
    close its own fence, and an answer that must repeat the mark cannot be copied out of a text.

    Args:
        template: PROMPT row.
        fixed: Values that a person wrote in YAML; the system template reads these and `labels`.
        given: Texts of records and models, or lists of them, for the user template alone.

    Raises:
        ConfigError: The template does not compile, or reads a name it is not given.
    """
    mark = digest([template.get("style"), sorted(given.items())])[:12]
    shown = {
        name: [fence(text, mark) for text in value] if isinstance(value, list) else fence(value, mark)
        for name, value in given.items()
    }
    labels = list(template.get("labels") or ())
    values = {"labels": labels, **fixed}
    chat = []
    if template.get("system"):
        chat.append({"role": "system", "content": _fill(template, "system", **values)})
    chat.append({"role": "user", "content": _fill(template, "user", **values, **shown, mark=mark)})
    return chat, mark


def fence(text: str, mark: str) -> str:
    """A text between fences; nothing stays nothing, so that a template can leave out what is not there."""
    return f"<<<{mark}\n{text}\n{mark}>>>" if text.strip() else ""


def conversation(seed: Mapping[str, Any]) -> str:
    """What a seed asks, as one text: the words of its only turn, or every turn after the name of its speaker."""
    turns = list(seed["messages"])
    if len(turns) == 1:
        return text_of(turns)
    said = {"assistant": "Assistant"}
    return "\n\n".join(f"{said.get(turn['role'], 'User')}: {text_of([turn])}" for turn in turns)


def _fill(template: Mapping[str, Any], role: str, **values: Any) -> str:
    place = f"{role} template of {template.get('task')}/{template.get('style')}"
    try:
        return _compiled(template[role] or "").render(values).strip()
    except UndefinedError as error:
        style = STYLES.get(template.get("style") or "full", STYLES["full"])
        known: Sequence[str] = style.user if role == "user" else style.system
        hint = " Record text goes in the user template." if role == "system" else ""
        raise ConfigError(place, f"{error}.", f"It may read {', '.join(known)}.{hint}") from error
    except TemplateError as error:
        raise ConfigError(place, f"the template cannot be rendered ({error}).", "Mend its Jinja2 source.") from error
