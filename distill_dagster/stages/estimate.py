"""What a pipeline would ask its teacher, and what that would cost, before anything is sent.

Questions are made as the stages make them, and looked up in the journal. Tokens of a question are counted with the
tokenizer of a local teacher; for any other they lie between a sixth of its bytes and all of them, likely a quarter.
An answer has one token at least and the question's `max_new_tokens` at most; likely is the mean of this teacher's
earlier answers, or the most where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from distill_dagster.config.models import Block
from distill_dagster.knowledge.base import Answer, KindBase, Material, Question, load_kind
from distill_dagster.lineage.engine import Services, action_key, head_version, read_parents, reads_of
from distill_dagster.stages import egress, eval_report, metering, panel, teacher_model, teacher_outputs, teaching
from distill_dagster.stages.context import PipelineContext, prompts_by
from distill_dagster.stages.project import Project
from distill_dagster.storage.store import Key, Version, key_text
from distill_dagster.teachers._journal import Usage
from distill_dagster.teachers.base import Request, Teacher, request_key
from distill_dagster.teachers.budget import worst_tokens
from distill_dagster.teachers.journal import Journal
from distill_dagster.teachers.prices import Tariff
from distill_dagster.teachers.stores import open_journal

#: Bytes of a token: few words are one, and no language needs fewer in the long run.
LONG, USUAL = 6, 4
A_MESSAGE = 4


class Range(NamedTuple):
    """A figure that is not known yet."""

    low: int
    likely: int
    high: int

    def __add__(self, other: Range) -> Range:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Range(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


ZERO = Range(0, 0, 0)


@dataclass(frozen=True)
class Part:
    """What one stage would ask.

    Attributes:
        name: The artifact, with the kind of knowledge.
        questions: Different questions.
        answered: Those that the journal has answers to.
        input_tokens: Tokens of the questions still to ask.
        output_tokens: Tokens of their answers.
        cost_micros: Their price; None without prices.
    """

    name: str
    questions: int
    answered: int
    input_tokens: Range
    output_tokens: Range
    cost_micros: Range | None

    @property
    def to_ask(self) -> int:
        """Questions that would be sent."""
        return self.questions - self.answered


@dataclass(frozen=True)
class Estimate:
    """Parts in the order in which they would be asked; `currency` where the teacher names prices.

    `unfitted`: the teacher is fitted first, so nothing can be known of its answers. `earlier` is how many answers of
    this teacher the likely length was taken from. `later` names the kinds of knowledge whose next questions depend on
    answers that are not there yet; those questions are not counted.
    """

    parts: list[Part]
    currency: str | None
    unfitted: bool
    earlier: int
    later: list[str]


def estimate(project: Project, name: str) -> Estimate:
    """What a run of a pipeline would ask.

    The seed, evaluation and prompt sets, and the record of a teacher that is not fitted, are made where they are not
    known yet; no question is sent.

    Raises:
        ConfigError: No such pipeline, or no price of the teacher's model.
    """
    pipeline = project.pipeline(name)
    owner = project.pipelines[pipeline.data]
    source = pipeline.source.key
    wanted: list[Key] = [(source, artifact) for artifact in ("seed_set", "eval_set", "prompt_set")]
    if pipeline.teacher.fit is None:
        wanted.append((pipeline.data, "teacher_model"))
    made = project.run(project.select(name, [key_text(key) for key in wanted]), Services(project.state))
    versions = {one.node.key[1]: one.version for one in made}
    version = versions.get("teacher_model") or _known(project, (pipeline.data, "teacher_model"))
    material = teacher_outputs.material(owner, versions["seed_set"], versions["prompt_set"])
    items = eval_report.test_items(versions["eval_set"], set(pipeline.tasks), pipeline.config.evaluation.max_items)
    styles = prompts_by(versions["prompt_set"])
    parts: list[Part] = []
    later: list[str] = []
    earlier, currency = 0, None
    examined = {member.teacher.name: member for member in pipeline.asked}
    for member, mine in panel.seats(owner, material):
        examiner = examined[member.teacher.name]
        teacher = teaching.open_teacher(member, version) if version is not None else None
        whose = f" ({member.teacher.name})" if owner.teachers is not None else ""
        asked: list[tuple[str, list[Request]]] = []
        with open_journal(project.state) as journal:
            for block in owner.config.knowledge:
                requests, complete = _foreseen(member, block, mine, teacher, journal)
                asked.append((f"{owner.key}/teacher_outputs: {block.name}{whose}", requests))
                if not complete and block.name not in later:
                    later.append(block.name)
        own = [item for item in items if eval_report.is_asked(examiner, item)]
        given = versions["seed_set"].table("seed").to_pylist() if examiner.teacher.recorded else []
        requests = eval_report.teacher_requests(examiner, styles, own, given)
        passed = egress.look(examiner, requests, [[item] for item in own])
        asked.append((f"{pipeline.key}/eval_report{whose}", passed.requests))
        found, answers = _parts(project, examiner, version, teacher, asked)
        parts += found
        earlier += answers
        tariff = metering.tariff_of(examiner)
        currency = tariff.currency if tariff else currency
    return Estimate(parts, currency, version is None, earlier, later)


def _parts(
    project: Project,
    pipeline: PipelineContext,
    version: Version | None,
    teacher: Teacher | None,
    asked: Sequence[tuple[str, list[Request]]],
) -> tuple[list[Part], int]:
    """What one teacher would be asked, and how many earlier answers the likely length was taken from."""
    tariff = metering.tariff_of(pipeline)
    count = _counter(pipeline, version)
    with open_journal(project.state) as journal:
        usage = Usage(0, 0.0, 0.0)
        if teacher is not None:
            usage = journal.store.usage(teacher.identity, pipeline.namespace)
        parts, seen = [], set()
        for title, requests in asked:
            unique = _unique(teacher, requests, pipeline.namespace, seen)
            known = journal.store.known(list(unique)) if teacher is not None else {}
            left = [request for key, request in unique.items() if key not in known]
            parts.append(_part(title, len(unique), len(known), left, count, usage, tariff))
    return parts, usage.answers


def _foreseen(
    owner: PipelineContext, block: Block, material: Material, teacher: Teacher | None, journal: Journal
) -> tuple[list[Request], bool]:
    """A kind's questions to the teacher, as far as the journal has the answers; and whether that is all."""
    kind = load_kind(block)
    rounds, found, inputs = kind.rounds(material), list[Request](), list[dict[str, Any]]()
    seeds = {row["seed_no"]: row for row in (*material.seeds, *material.gold)}
    count = 0
    try:
        questions = next(rounds)
        while True:
            questions = teacher_outputs.addressed(owner, material, kind, questions)
            theirs = [question for question in questions if question.who == "teacher"]
            requests = [question.request for question in theirs]
            passed = egress.look(owner, requests, egress.origins(theirs, seeds, inputs))
            found += passed.requests
            answers = None
            if teacher is not None and len(passed.requests) == len(questions):
                answers = _answers(questions, passed.requests, teacher, journal, owner.namespace, count)
            if answers is None:
                return found, type(kind).rounds is KindBase.rounds
            inputs += [{"call_no": a.call_no, "kind": k, "ref_no": ref} for a in answers for k, ref in a.question.refs]
            count += len(answers)
            questions = rounds.send(answers)
    except StopIteration:
        return found, True


def _answers(
    questions: Sequence[Question],
    requests: Sequence[Request],
    teacher: Teacher,
    journal: Journal,
    namespace: str,
    first: int,
) -> list[Answer] | None:
    """The answers of a round, if the journal has them all."""
    keys = [request_key(teacher, request, namespace) for request in requests]
    known = journal.store.known(keys)
    if any(key not in known for key in keys):
        return None
    pairs = enumerate(zip(questions, keys, strict=True), first)
    return [Answer(question, known[key].response, number) for number, (question, key) in pairs]


def _known(project: Project, key: Key) -> Version | None:
    """The version that an artifact's action is known to make, if it is."""
    node = project.nodes[key]
    if any(head_version(project.store, parent.key) is None for parent in node.parents):
        return None
    versions, _ = read_parents(node, project.store)
    known = project.store.action(action_key(node, reads_of(node.parents, versions), node.outside()))
    return None if known is None else project.store.open(key, known["version"])


def _unique(teacher: Teacher | None, requests: Sequence[Request], namespace: str, seen: set[str]) -> dict[str, Request]:
    """Questions by journal key, those of earlier parts left out. Without a teacher the keys stand for nothing else."""
    found: dict[str, Request] = {}
    for request in requests:
        key = request_key(teacher or _Nobody(), request, namespace)
        if key not in seen:
            found[key] = request
    seen.update(found)
    return found


class _Nobody:
    """Stands for a teacher that is yet to be fitted."""

    identity, revision = "", ""

    def ask(self, requests: Sequence[Request]):
        raise NotImplementedError


def _part(
    title: str,
    questions: int,
    answered: int,
    left: list[Request],
    count: Callable[[Request], Range],
    usage: Usage,
    tariff: Tariff | None,
) -> Part:
    read, written, cost = ZERO, ZERO, ZERO
    for request in left:
        asks = count(request)
        most = worst_tokens(request)[1] if asks.high else 0
        mean = round(usage.output_tokens) if usage.answers else most
        says = Range(min(1, most), min(max(mean, min(1, most)), most), most)
        read, written = read + asks, written + says
        if tariff is not None:
            cost += Range(*(tariff.cost(*pair) for pair in zip(asks, says, strict=True)))
    return Part(title, questions, answered, read, written, cost if tariff is not None else None)


def _counter(pipeline: PipelineContext, version: Version | None) -> Callable[[Request], Range]:
    """How tokens of a question are counted for this teacher."""
    if pipeline.teacher.recorded is not None:
        return lambda request: ZERO
    if version is None or not teacher_model.is_local(pipeline):
        return by_bytes
    from distill_dagster.models import chat, classifier, folder

    weights = teacher_model.weights(pipeline, version)
    tokenizer = folder.load_tokenizer(weights)
    classifies = classifier.kind(weights) == "classifier"
    plain = pipeline.teacher.template == "plain"

    def exact(request: Request) -> Range:
        if classifies:
            ids = chat.tokens(tokenizer, classifier.text(request.messages), True)
        elif plain:
            ids = chat.tokens(tokenizer, "".join(message["content"] for message in request.messages), True)
        else:
            ids = chat.tokens(tokenizer, chat.render(tokenizer, request.messages, True), False)
        return Range(len(ids), len(ids), len(ids))

    return exact


def by_bytes(request: Request) -> Range:
    """Tokens of a question where no tokenizer is at hand."""
    size = sum(len(message["content"].encode("utf-8", "replace")) for message in request.messages)
    likely = -(-size // USUAL) + A_MESSAGE * len(request.messages)
    return Range(-(-size // LONG), likely, worst_tokens(request)[0])
