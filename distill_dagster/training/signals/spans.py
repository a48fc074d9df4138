"""Two tokenizers over one text: which tokens of the one cover the same bytes as which of the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_dagster.errors import TrainingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from distill_dagster.training.data import Example

_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
#: SentencePiece writes a space so.
_SPACE = "▁"
#: A token's place in its example, and its bytes; None for the end token.
_Token = tuple[int, bytes | None]


@dataclass(frozen=True)
class Words:
    """What the ids of a tokenizer stand for.

    Attributes:
        pieces: Bytes of each id; None for a control token, which stands for no text.
        end: The end token.
        names: Ids of control tokens by their text.
        fallback: Ids that stand for one byte where no other token does.
    """

    pieces: list[bytes | None]
    end: int
    names: dict[str, int]
    fallback: frozenset[int]


def words(tokenizer: PreTrainedTokenizerBase, place: str = "tokenizer") -> Words:
    """What every id of a tokenizer stands for, in bytes: byte-level BPE, or SentencePiece with or without bytes.

    Raises:
        TrainingError: A tokenizer of another make, whose tokens do not say which bytes they are.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = str(json.loads(backend.to_str()).get("decoder")) if backend is not None else ""
    if "'ByteLevel'" in decoder:
        alphabet = _alphabet()
    elif any(sign in decoder for sign in ("'Metaspace'", "'ByteFallback'", _SPACE)):
        alphabet = None
    else:
        raise TrainingError(
            place,
            "its tokens do not say which bytes they are: it is neither byte-level nor SentencePiece.",
            "Give a teacher and a student with byte-level or SentencePiece tokenizers, or use `sft`.",
        )
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special} | set(tokenizer.all_special_ids)
    pieces: list[bytes | None] = [None] * len(tokenizer)
    names: dict[str, int] = {}
    fallback = set()
    for text, number in tokenizer.get_vocab().items():
        if number >= len(pieces):
            continue
        if number in special:
            names[text] = number
        elif number in added:
            pieces[number] = text.encode()
        elif alphabet is not None:
            pieces[number] = b"".join(alphabet.get(sign, sign.encode()) for sign in text)
        elif found := _FALLBACK.fullmatch(text):
            pieces[number] = bytes([int(found.group(1), 16)])
            fallback.add(number)
        else:
            pieces[number] = text.replace(_SPACE, " ").encode()
    return Words(pieces, int(tokenizer.eos_token_id), names, frozenset(fallback))  # pyright: ignore[reportArgumentType]


def _alphabet() -> dict[str, bytes]:
    """The printable sign of each byte in byte-level BPE (Radford et al. 2019): itself, or one beyond 255 in order."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in set(plain)]
    return {
        **{chr(byte): bytes([byte]) for byte in plain},
        **{chr(256 + n): bytes([b]) for n, b in enumerate(hidden)},
    }


def shared(student: Words, teacher: Words) -> dict[int, int]:
    """Teacher ids that a student has a token for, and that token: the same bytes, the same control token, the end."""
    own: dict[bytes, int] = {}
    for number in _usual_first(student):
        piece = student.pieces[number]
        if piece:
            own.setdefault(piece, number)
    found, taken = {teacher.end: student.end}, {student.end}
    for text, number in teacher.names.items():
        mine = student.names.get(text)
        if mine is not None and mine not in taken and number not in found:
            found[number] = mine
            taken.add(mine)
    for number in _usual_first(teacher):
        mine = own.get(teacher.pieces[number] or b"")
        if mine is not None and mine not in taken and number not in found:
            found[number] = mine
            taken.add(mine)
    return found


def _usual_first(known: Words) -> list[int]:
    return sorted(range(len(known.pieces)), key=lambda number: (number in known.fallback, number))


@dataclass(frozen=True)
class Span:
    """Tokens of a student and of a teacher that begin and end at the same bytes.

    Attributes:
        start: First byte, counted from the beginning of the text.
        stop: Behind the last; the end of a turn is one further than its text.
        student: Places of the student's tokens in its example.
        teacher: Places of the teacher's.
    """

    start: int
    stop: int
    student: tuple[int, ...]
    teacher: tuple[int, ...]


def align(text: str, student: Sequence[_Token], teacher: Sequence[_Token]) -> list[Span]:
    """The finest spans of a text at both ends of which both tokenizers have a boundary, in order.

    Args:
        text: What both read.
        student: The student's tokens around it: place, bytes (None: the end token).
        teacher: The teacher's.

    Returns:
        Spans inside the text, and one for the end token where both have it right behind the text. Empty where the
        text is not found in what one of them read.
    """
    mine, theirs = _offsets(text, student), _offsets(text, teacher)
    if mine is None or theirs is None:
        return []
    size = len(_found(text, student) or b"")
    cuts = sorted({cut for _, a, b in mine for cut in (a, b)} & {cut for _, a, b in theirs for cut in (a, b)})
    spans = []
    for start, stop in zip(cuts, cuts[1:], strict=False):
        if 0 <= start < stop <= size + 1:
            sides = [tuple(at for at, a, b in side if start <= a < b <= stop) for side in (mine, theirs)]
            if all(sides) and (stop <= size or start == size):
                spans.append(Span(start, stop, *sides))
    return spans


def _found(text: str, tokens: Sequence[_Token]) -> bytes | None:
    """The text, or what a template left of it, as the tokens have it."""
    said = b"".join(piece or b"" for _, piece in tokens)
    return next((part for part in (text.encode(), text.strip().encode()) if part and part in said), None)


def _offsets(text: str, tokens: Sequence[_Token]) -> list[tuple[int, int, int]] | None:
    """Place, first byte and end of each token, counted from the text's beginning; the end token is a byte long."""
    part = _found(text, tokens)
    if part is None:
        return None
    at = -b"".join(piece or b"" for _, piece in tokens).rindex(part)
    found = []
    for place, piece in tokens:
        if at > len(part) or (at == len(part) and piece is not None):
            break  # what a template writes between the text and the end is nothing that both would say
        if piece is None and at != len(part):
            break
        size = 1 if piece is None else len(piece)
        found.append((place, at, at + size))
        at += size
        if piece is None:
            break
    return found


def turns(example: Example, known: Words) -> Iterator[list[_Token]]:
    """The tokens of each run that carries a loss: an assistant's turn with its end token, or a whole plain text."""
    run: list[_Token] = []
    for place, (number, weight) in enumerate(zip(example.ids, example.weights, strict=True)):
        if not weight:
            if run:
                yield run
            run = []
        elif number == known.end:
            yield [*run, (place, None)]
            run = []
        elif known.pieces[number] is not None:
            run.append((place, known.pieces[number]))
    if run:
        yield run
