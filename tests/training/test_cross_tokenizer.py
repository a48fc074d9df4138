"""Two tokenizers over the same bytes, and a divergence at the boundaries that both have."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_dagster.errors import TrainingError
from distill_dagster.training.data import Chat, encode

pytestmark = pytest.mark.needs_torch

KINDS = ("forward", "reverse", "jsd", "skew_forward", "skew_reverse")
WORDS = [
    "the ",
    "theory",
    " grüße",
    "naïve",
    "日本語",
    "日本",
    "🙂🙂",
    "\n\n",
    "  ",
    "12",
    "345",
    ".",
    "a",
    "—",
    "ñ",
    "\t",
]
FIRST = ["the theory of the sea", "grüße aus Köln", "日本語 日本", "12 345", "🙂🙂"]
SECOND = ["theory sea seas theories", "naïve — ñandú", "本語 語", "🙂", "  \n\n  "]


@cache
def fitted(name: str):
    from distill_dagster.training import tokenizer

    texts = {"first": FIRST, "second": SECOND}.get(name, [])
    return tokenizer.fit(texts, 300 if texts else "bytes", mkdtemp())


@cache
def pieces(name: str):
    """A SentencePiece-like tokenizer: spaces are written ▁, unknown bytes as <0x..>."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": byte + 3 for byte in range(256)}}
    for word in ("▁", "t", "h", "e", "▁t", "he", "▁the", "日", "本", "日本", "12"):
        vocab.setdefault(word, len(vocab))
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("日", "本")]
    inner = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template="{% for m in messages %}{{ m['role'] + ':' + m['content'] + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}",
    )


def chat(answer: str, number: int = 0) -> Chat:
    return Chat(f"r{number}", ({"role": "user", "content": "say it"}, {"role": "assistant", "content": answer}))


def one(tokenizer, answer: str):
    (example,) = encode(tokenizer, [chat(answer)], 4096).examples
    return example


def aligned(student, teacher, answer: str):
    from distill_dagster.training.signals import spans

    known = spans.words(student), spans.words(teacher)
    mine, theirs = one(student, answer), one(teacher, answer)
    (left,), (right,) = list(spans.turns(mine, known[0])), list(spans.turns(theirs, known[1]))
    return spans.align(answer, left, right), mine, theirs, known


texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map("".join) | st.text(min_size=1, max_size=20)
visible = texts.filter(lambda text: text.strip() == text and "<" not in text and "\x00" not in text)


@settings(max_examples=80, deadline=None)
@given(visible, st.sampled_from(["second", "bytes", "first"]))
@pytest.mark.slow
def test_spans_are_the_finest_that_cover_the_same_bytes(answer: str, other: str) -> None:
    found, mine, theirs, (student, teacher) = aligned(fitted("first"), fitted(other), answer)
    whole = answer.encode()

    def said(known, ids) -> bytes:
        return b"".join(known.pieces[number] or b"" for number in ids)

    at = 0
    for span in found[:-1]:
        assert span.start == at < span.stop <= len(whole)
        at = span.stop
        for known, example, places in ((student, mine, span.student), (teacher, theirs, span.teacher)):
            assert said(known, [example.ids[place] for place in places]) == whole[span.start : span.stop]
    assert at == len(whole)
    # The end tokens belong together, and every token of both answers has its place in one span.
    last = found[-1]
    assert (last.start, last.stop) == (len(whole), len(whole) + 1)
    assert [mine.ids[place] for place in last.student] == [student.end]
    assert [theirs.ids[place] for place in last.teacher] == [teacher.end]
    for example, side in ((mine, "student"), (theirs, "teacher")):
        places = [place for span in found for place in getattr(span, side)]
        assert places == [place for place, weight in enumerate(example.weights) if weight]

    def inner(places, known, example) -> set[int]:
        cuts, at = set(), 0
        for place in places[:-1]:
            at += len(known.pieces[example.ids[place]])
            cuts.add(at)
        return cuts

    for span in found:  # none could be cut further
        assert not inner(span.student, student, mine) & inner(span.teacher, teacher, theirs)


@settings(max_examples=40, deadline=None)
@given(visible)
def test_one_tokenizer_has_spans_of_one_token(answer: str) -> None:
    found, mine, _, _ = aligned(fitted("first"), fitted("first"), answer)
    assert [span.student for span in found] == [(at,) for at, weight in enumerate(mine.weights) if weight]
    assert all(span.student == span.teacher for span in found)


@settings(max_examples=40, deadline=None)
@given(visible)
def test_sentencepiece_against_bytes(answer: str) -> None:
    """Every byte is a token of the one, so the spans are the other's tokens; its added first space is none of them."""
    teacher = pieces("sp")
    found, _, theirs, (_, known) = aligned(fitted("bytes"), teacher, answer)
    text = b"".join(answer.encode()[span.start : span.stop] for span in found[:-1])
    assert answer.encode().endswith(text)
    for span in found[:-1]:
        assert len(span.teacher) == 1
        assert known.pieces[theirs.ids[span.teacher[0]]] == answer.encode()[span.start : span.stop]


def test_the_same_words_and_control_tokens_are_found() -> None:
    from distill_dagster.training.signals import spans

    first, second = spans.words(fitted("first")), spans.words(fitted("second"))
    found = spans.shared(first, second)
    assert len(set(found.values())) == len(found) > 256
    for teacher, student in found.items():
        if second.pieces[teacher] is not None:
            assert second.pieces[teacher] == first.pieces[student]
    assert found[second.end] == first.end and found[second.names["<|user|>"]] == first.names["<|user|>"]
    same = spans.shared(first, first)
    assert same == {number: number for number in range(len(first.pieces))}
    mixed = spans.shared(first, spans.words(pieces("sp")))
    assert mixed[2] == first.end  # </s> and <|end|>
    space = fitted("first").encode(" ")[0]
    assert mixed[pieces("sp").convert_tokens_to_ids("▁")] == space
    assert pieces("sp").convert_tokens_to_ids("<0x20>") not in mixed  # one student token has one teacher token


def test_what_stands_twice_or_is_trimmed_or_missing() -> None:
    from distill_dagster.training.signals import spans

    # A template that trims: the text is found without its edges. One whose words differ: nothing is aligned.
    tokens = [(3, b"ab"), (4, b"c"), (5, None)]
    (first, second, end) = spans.align(" abc ", tokens, [(8, b"ab"), (9, b"c"), (10, None)])
    assert (first.start, first.stop, first.student, first.teacher) == (0, 2, (3,), (8,))
    assert (second.stop, end.start, end.stop) == (3, 3, 4)
    assert spans.align("abd", tokens, tokens) == []
    # A token across the edge, and text between the answer and the end, belong to no span.
    found = spans.align("abc", [(3, b"xab"), (4, b"c"), (5, b"\n"), (6, None)], [(8, b"ab"), (9, b"c"), (10, None)])
    assert [(span.start, span.stop, span.student, span.teacher) for span in found] == [(2, 3, (4,), (9,))]


# --- the objective ----------------------------------------------------------------------------------------------


def folders(tmp_path: Path, student: str, teacher: str):
    from distill_dagster.training import folder, presets

    tokenizer = fitted(teacher)
    path = folder.save(presets.build("nano", tokenizer, 11), tokenizer, tmp_path / "teacher")
    return presets.build("nano", fitted(student), 5), path


CHATS = [
    Chat(c.record_id, c.messages, 0.5 + 0.25 * number)
    for number, c in enumerate(
        [chat("the theory of 日本", 0), chat("naïve — 12 🙂🙂", 1), chat("grüße", 2)],
    )
]


def batch(model, tokenizer, source):
    from distill_dagster.training.forward import Forward

    examples = encode(tokenizer, CHATS, 512).examples
    positions = Forward(model)(examples, 0)
    positions.signals = {source.name: source(examples, positions)}
    return examples, positions


def learned(model, objective, positions):
    model.zero_grad(set_to_none=True)
    value = objective(positions)
    value.backward()
    return value.item(), {name: entry.grad.clone() for name, entry in model.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("temperature", "k"), [(1.0, 0), (2.0, 8)])
def test_with_one_tokenizer_it_is_the_plain_divergence(tmp_path: Path, kind: str, temperature: float, k: int) -> None:
    import torch

    from distill_dagster.training.objectives.base import build
    from distill_dagster.training.signals.aligned import AlignedTeacher
    from distill_dagster.training.signals.live import LiveTeacher

    model, path = folders(tmp_path, "first", "first")
    params = {"kind": kind, "temperature": temperature, "k": k}
    _, positions = batch(model, fitted("first"), LiveTeacher(path, fitted("first")))
    plain = learned(model, build("divergence", {**params, "signals": "live"}), positions)
    _, positions = batch(model, fitted("first"), AlignedTeacher(path, fitted("first"), CHATS))
    crossed = learned(model, build("cross_tokenizer", params), positions)
    assert crossed[0] == pytest.approx(plain[0], rel=1e-5) and plain[0] > 0
    for name, gradient in plain[1].items():
        assert torch.allclose(crossed[1][name], gradient, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("student", "teacher"), [("first", "second"), ("bytes", "first"), ("first", "bytes")])
def test_it_is_what_its_definition_says(tmp_path: Path, kind: str, student: str, teacher: str) -> None:
    """Against loops over spans, in float64, with every distribution written out."""
    import math

    import torch

    from distill_dagster.models import folder
    from distill_dagster.training.losses.divergences import Divergence
    from distill_dagster.training.objectives.base import build
    from distill_dagster.training.signals import spans
    from distill_dagster.training.signals.aligned import AlignedTeacher

    hot = 1.5
    model, path = folders(tmp_path, student, teacher)
    source = AlignedTeacher(path, fitted(student), CHATS)
    examples, positions = batch(model, fitted(student), source)
    got = build("cross_tokenizer", {"kind": kind, "temperature": hot, "k": 0})(positions).item()
    only = build("cross_tokenizer", {"kind": kind, "temperature": hot, "k": 0, "spans": "single"})(positions).item()

    own = folder.load_model(path)
    ids = source.pairs
    total = sum(sum(example.weights[1:]) for example in examples)
    value = single = 0.0
    kinds = set()
    divergence = Divergence(kind)
    for record, example in zip(CHATS, examples, strict=True):
        (said,) = encode(fitted(teacher), [record], 512).examples
        (left,), (right,) = list(spans.turns(example, source.student)), list(spans.turns(said, source.teacher))
        with torch.no_grad():
            q = (model(torch.tensor([example.ids])).logits[0].double() / hot).softmax(-1)
            p = (own(torch.tensor([said.ids])).logits[0].double() / hot).softmax(-1)
        for span in spans.align(record.messages[1]["content"], left, right):
            if len(span.student) == len(span.teacher) == 1:
                at, its = span.student[0] - 1, span.teacher[0] - 1
                mine = [q[at, number].item() for number in ids.values()]
                theirs = [p[its, number].item() for number in ids]
                if len(ids) in (len(fitted(student)), len(fitted(teacher))):  # no rest: given one of these
                    mine, theirs = [x / sum(mine) for x in mine], [x / sum(theirs) for x in theirs]
            else:
                mine = [math.prod(q[at - 1, example.ids[at]].item() for at in span.student)]
                theirs = [math.prod(p[at - 1, said.ids[at]].item() for at in span.teacher)]
            buckets = [torch.tensor([*side, max(1 - sum(side), 1e-30)]).double().log() for side in (theirs, mine)]
            one_span = hot**2 * divergence(buckets[0][None], buckets[1][None])[0].item() * record.weight / total
            value += one_span
            kinds.add(len(span.student) == len(span.teacher) == 1)
            single += one_span if len(span.student) == len(span.teacher) == 1 else 0.0
    assert kinds == {True, False}
    assert got == pytest.approx(value, rel=1e-3) and only == pytest.approx(single, rel=1e-3)


def test_a_student_comes_nearer_to_a_teacher_with_another_tokenizer(tmp_path: Path) -> None:
    from distill_dagster.config.models import Recipe
    from distill_dagster.training.signals.aligned import AlignedTeacher
    from distill_dagster.training.trainer import train

    model, path = folders(tmp_path, "bytes", "first")
    examples = encode(fitted("bytes"), CHATS, 512).examples
    recipe = Recipe(objective={"cross_tokenizer": 1.0}, steps=15, batch_tokens=256, learning_rate=3e-3, warmup_steps=2)
    source = AlignedTeacher(path, fitted("bytes"), CHATS)
    summary = train(model, fitted("bytes"), examples, recipe, tmp_path / "work", signals=[source])
    assert summary["loss"] < 0.7 * summary["first_loss"]


def test_what_cannot_be_aligned_is_said(tmp_path: Path) -> None:
    from distill_dagster.training.forward import Forward
    from distill_dagster.training.signals import spans
    from distill_dagster.training.signals.aligned import AlignedTeacher
    from distill_dagster.training.signals.live import LiveTeacher

    model, path = folders(tmp_path, "first", "second")
    with pytest.raises(TrainingError, match="cross_tokenizer"):
        LiveTeacher(path, fitted("first"))
    source = AlignedTeacher(path, fitted("first"), CHATS)
    (other,) = encode(fitted("first"), [chat("never read", 77)], 512).examples
    positions = Forward(model)([other], 0)
    with pytest.raises(TrainingError, match="record r77.*never read"):
        source([other], positions)
    assert source.digest != AlignedTeacher(path, fitted("first"), CHATS[:2]).digest

    class Strange:
        backend_tokenizer = None

    with pytest.raises(TrainingError, match="neither byte-level nor SentencePiece"):
        spans.words(Strange())  # type: ignore[arg-type]
