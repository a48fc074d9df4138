"""Near duplicates by MinHash over word 3-shingles, with every hit verified by its exact Jaccard similarity.

Broder 1997 (resemblance), Leskovec et al. ch. 3 (banding). Signatures are cut into bands; texts that agree in one
band are candidates. The number of rows a band is chosen so that a pair at the threshold is missed less than once in
10,000; what the bands let through below the threshold costs time only, since every candidate pair is verified.

Two texts that differ in a number are different questions, however alike the words are. By default
(`numbers="distinct"`) only texts with the same numbers in the same order can be duplicates. The numbers are part of
the band keys, so templated texts with other figures never meet.

Memory is 4 bytes a band and 24 more a text; shingles are made again for the candidates alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from distill_dagster.filtering._text import is_number, plain_number, words

Numbers = Literal["distinct", "words"]
#: Texts on the left and on the right.
Sides = tuple[Sequence[str], Sequence[str]]

SHINGLE = 3
PERMUTATIONS = 128
MISS = 1e-4
#: Texts hashed at a time (their shingles stay in the processor's cache), pairs met, pairs and shingles verified at a
#: time: what is held beside the sketch does not grow with the texts.
_TEXTS, _PAIRS, _VERIFIED, _CELLS = 2_000, 100_000, 4_000, 1_000_000
_VOCABULARY = 200_000
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Pairs(NamedTuple):
    """Near pairs: positions on both sides and the exact Jaccard similarity, sorted by left, then right."""

    left: np.ndarray
    right: np.ndarray
    similarity: np.ndarray


def _mix(values: np.ndarray) -> np.ndarray:
    """The splitmix64 finalizer: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


_FACTORS = _mix(np.arange(1, PERMUTATIONS + 1, dtype=np.uint64) * _GOLDEN) | np.uint64(1)


class _Hashes(dict[str, int]):
    """64-bit hashes of words; the lowest bit says whether the word is a number."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _VOCABULARY:
            self.clear()
        number = is_number(word)
        name = plain_number(word) if number and "," in word else word
        value = int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        self[word] = value = (value & ~1) | number
        return value


class _Words(NamedTuple):
    """Hashed words of some texts: flat hashes, and the first word of each text with the end appended."""

    hashes: np.ndarray
    edges: np.ndarray


def hashed_words(texts: Sequence[str], table: dict[str, int] | None = None) -> _Words:
    """The words of texts as 64-bit hashes, flat, with the edges between texts (one more than texts)."""
    table = _Hashes() if table is None else table
    split = [words(text) for text in texts]
    edges = np.zeros(len(split) + 1, dtype=np.int64)
    np.cumsum([len(entry) for entry in split], out=edges[1:])
    flat = np.fromiter(map(table.__getitem__, chain.from_iterable(split)), dtype=np.uint64, count=int(edges[-1]))
    return _Words(flat, edges)


def windows(text_words: _Words, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of `size` words inside a text, and the text each belongs to. Shorter texts give none."""
    hashes, edges = text_words
    count = len(hashes) - size + 1
    if count <= 0:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    owner = np.repeat(np.arange(len(edges) - 1), np.diff(edges))
    inside = np.flatnonzero(owner[:count] == owner[size - 1 :])
    value = np.zeros(len(inside), dtype=np.uint64)
    for step in range(size):
        value = _mix(value * _GOLDEN + hashes[inside + step])
    return value, owner[inside]


def shingles(text_words: _Words) -> tuple[np.ndarray, np.ndarray]:
    """Word 3-shingles and the text each belongs to, by text; a text of one or two words is one shingle."""
    value, owner = windows(text_words, SHINGLE)
    hashes, edges = text_words
    length = np.diff(edges)
    short = np.flatnonzero((length > 0) & (length < SHINGLE))
    if len(short):
        first = hashes[edges[short]]
        second = np.where(length[short] == 2, hashes[edges[short + 1] - 1], np.uint64(0))
        value = np.concatenate([value, _mix(_mix(first) * _GOLDEN + second)])
        owner = np.concatenate([owner, short])
        order = np.argsort(owner, kind="stable")
        value, owner = value[order], owner[order]
    return value, owner


def _sums(values: np.ndarray, owner: np.ndarray, count: int) -> np.ndarray:
    """Wrapping sums of uint64 values by owner; `owner` is sorted."""
    total = np.zeros(count, dtype=np.uint64)
    if len(owner):
        first = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
        total[owner[first]] = np.add.reduceat(values, first)
    return total


def bands_for(threshold: float) -> tuple[int, int]:
    """Bands and rows a band for a threshold: the longest rows that miss a pair at it less than `MISS` of the time."""
    for rows in range(16, 1, -1):
        bands = PERMUTATIONS // rows
        if (1 - threshold**rows) ** bands <= MISS:
            return bands, rows
    return PERMUTATIONS, 1


@dataclass(frozen=True)
class Sketch:
    """What is kept of each text: band keys `[texts, bands]`, a key of its numbers and group, a key of all its words.

    `whole` is 0 for a text without words, which is nobody's duplicate.
    """

    keys: np.ndarray
    stem: np.ndarray
    whole: np.ndarray

    def cut(self, rows: np.ndarray) -> Sketch:
        """The sketch of some texts, by rising rows, moved to the front of the same memory; this one is spent."""
        for column in (self.keys, self.stem, self.whole):
            for start in range(0, len(rows), _PAIRS):
                part = rows[start : start + _PAIRS]
                column[start : start + len(part)] = column[part]
        return Sketch(self.keys[: len(rows)], self.stem[: len(rows)], self.whole[: len(rows)])


def sketch(
    texts: Sequence[str], threshold: float, numbers: Numbers = "distinct", groups: np.ndarray | None = None
) -> Sketch:
    """Sketch texts. Texts of different `groups` (one integer a text) are never duplicates of each other."""
    bands, rows = bands_for(threshold)
    keys = np.zeros((len(texts), bands), dtype=np.uint32)
    stem = np.zeros(len(texts), dtype=np.uint64)
    whole = np.zeros(len(texts), dtype=np.uint64)
    if groups is not None:
        stem += _mix(np.asarray(groups).astype(np.uint64) * _GOLDEN + np.uint64(1))
    table = _Hashes()
    for start in range(0, len(texts), _TEXTS):
        part = texts[start : start + _TEXTS]
        here = slice(start, start + len(part))
        flat, edges = text_words = hashed_words(part, table)
        owner = np.repeat(np.arange(len(part)), np.diff(edges))
        place = (np.arange(len(flat)) - edges[owner]).astype(np.uint64)
        if numbers == "distinct":
            figures = np.flatnonzero(flat & np.uint64(1))
            rank = np.arange(len(figures)) - np.searchsorted(owner[figures], owner[figures])
            stem[here] += _sums(_mix(flat[figures] + _mix(rank.astype(np.uint64) + _GOLDEN)), owner[figures], len(part))
        whole[here] = _sums(_mix(flat + _mix(place + _GOLDEN)), owner, len(part))
        values, owner = shingles(text_words)
        if not len(values):
            continue
        first = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
        full = owner[first]
        for band in range(bands):
            key = stem[here][full]
            for factor in _FACTORS[band * rows : (band + 1) * rows]:
                key = _mix(key * _GOLDEN + np.minimum.reduceat(values * factor, first))
            keys[start + full, band] = (key >> np.uint64(32)).astype(np.uint32)
    return Sketch(keys, stem, whole)


def _spread(starts: np.ndarray, ends: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (index, value) for every value in `starts[index]..ends[index]`, at most about `_PAIRS` at a time."""
    sizes = np.maximum(ends - starts, 0)
    total = np.cumsum(sizes)
    done = 0
    while done < len(sizes):
        before = total[done - 1] if done else 0
        stop = max(done + 1, int(np.searchsorted(total, before + _PAIRS, side="right")))
        count = sizes[done:stop]
        index = np.repeat(np.arange(done, stop), count)
        offset = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
        yield index, starts[index] + offset
        done = stop


def _meetings(a: Sketch, b: Sketch | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Candidate pairs, each in the first band in which it meets."""
    alive_a = _small(np.flatnonzero(a.whole))
    alive_b = alive_a if b is None else _small(np.flatnonzero(b.whole))
    right_side = a if b is None else b
    for band in range(a.keys.shape[1]):
        order = alive_b[np.argsort(right_side.keys[alive_b, band], kind="stable")]
        column = right_side.keys[order, band]
        if b is None:
            meets = np.flatnonzero(column[1:] == column[:-1])
            left_side = order[meets]
            starts, ends = meets + 1, np.searchsorted(column, column[meets], side="right")
        else:
            left_side = alive_a
            asked = a.keys[alive_a, band]
            starts, ends = np.searchsorted(column, asked, side="left"), np.searchsorted(column, asked, side="right")
        for index, value in _spread(starts, ends):
            left, right = left_side[index], order[value]
            new = a.stem[left] == right_side.stem[right]
            if band:
                met = (a.keys[left, :band] == right_side.keys[right, :band]).any(axis=1)
                new &= ~met
            if new.any():
                yield left[new], right[new]


def _small(rows: np.ndarray) -> np.ndarray:
    """Rows as 32-bit integers where they fit: half the memory."""
    return rows.astype(np.int32) if rows.max(initial=0) < 2**31 else rows


def _unique_shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct shingles of texts, by text, as dense numbers; edges between the texts."""
    values, owner = shingles(hashed_words(texts))
    dense = np.unique(values, return_inverse=True)[1].astype(np.int64)
    span = int(dense.max(initial=0)) + 1
    cells = np.sort(owner * span + dense)  # np.unique hashes first, and takes longer.
    cells = cells[np.r_[True, cells[1:] != cells[:-1]][: len(cells)]]
    edges = np.searchsorted(cells, np.arange(len(texts) + 1) * span)
    return cells % span, edges


def _jaccard(
    texts_a: Sequence[str], texts_b: Sequence[str], left: np.ndarray, right: np.ndarray, threshold: float
) -> np.ndarray:
    """Exact Jaccard similarity of the shingle sets of pairs; 0 where the sizes alone rule the threshold out."""
    rows_a, left = np.unique(left, return_inverse=True)
    rows_b, right = np.unique(right, return_inverse=True)
    texts = [*(texts_a[int(row)] for row in rows_a), *(texts_b[int(row)] for row in rows_b)]
    right = right + len(rows_a)
    cells, edges = _unique_shingles(texts)
    size = np.diff(edges)
    small, large = np.minimum(size[left], size[right]), np.maximum(size[left], size[right])
    similarity = np.zeros(len(left))
    possible = np.flatnonzero(small >= threshold * large - 1e-9)
    span = int(cells.max(initial=0)) + 1
    total = np.cumsum(size[left[possible]] + size[right[possible]])
    done = 0
    while done < len(possible):
        before = total[done - 1] if done else 0
        stop = max(done + 1, int(np.searchsorted(total, before + _CELLS, side="right")))
        pairs = possible[done:stop]
        both = []
        for side in (left[pairs], right[pairs]):
            count = size[side]
            index = np.repeat(np.arange(len(side)), count)
            offset = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
            both.append(index * span + cells[edges[side][index] + offset])
        merged = np.sort(np.concatenate(both))
        common = np.bincount(merged[1:][merged[1:] == merged[:-1]] // span, minlength=len(pairs))
        total_of = size[left[pairs]] + size[right[pairs]] - common
        similarity[pairs] = np.where(total_of, common / np.maximum(total_of, 1), 1.0)  # without words, nothing differs
        done = stop
    return similarity


def _pairs(
    texts_a: Sequence[str],
    a: Sketch,
    texts_b: Sequence[str],
    b: Sketch | None,
    threshold: float,
    parts: Sequence[Sides] = (),
) -> Pairs:
    lefts, rights, scores = [], [], []
    for all_left, all_right in _meetings(a, b):
        for start in range(0, len(all_left), _VERIFIED):
            left, right = all_left[start : start + _VERIFIED], all_right[start : start + _VERIFIED]
            score = _jaccard(texts_a, texts_b, left, right, threshold)
            near = score >= threshold - 1e-9
            for part in parts:
                if near.any():
                    near[near] = _jaccard(*part, left[near], right[near], threshold) >= threshold - 1e-9
            lefts.append(left[near])
            rights.append(right[near])
            scores.append(score[near])
    left, right = (np.concatenate([np.zeros(0, np.int64), *side]) for side in (lefts, rights))
    score = np.concatenate([np.zeros(0), *scores])
    if b is None:
        left, right = np.minimum(left, right), np.maximum(left, right)
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], score[order])


def near_pairs(
    texts_a: Sequence[str],
    texts_b: Sequence[str] | None = None,
    threshold: float = 0.8,
    *,
    numbers: Numbers = "distinct",
    groups_a: np.ndarray | None = None,
    groups_b: np.ndarray | None = None,
    parts: Sequence[Sides] = (),
) -> Pairs:
    """All pairs of texts whose word 3-shingle sets have a Jaccard similarity of at least `threshold`.

    Args:
        texts_a: Texts.
        texts_b: Other texts; without them pairs inside `texts_a`, the earlier one on the left.
        threshold: 0 to 1; every returned pair reaches it exactly, one in 10,000 pairs at it is missed.
        numbers: `distinct`: both texts have the same numbers in the same order; `words`: numbers are words like any.
        groups_a: An integer a text; pairs are inside a group. `groups_b` likewise.
        parts: Parts of the texts on both sides, each of which has to be as near as the whole.
    """
    a = sketch(texts_a, threshold, numbers, groups_a)
    if texts_b is None:
        return _pairs(texts_a, a, texts_a, None, threshold, parts)
    return _pairs(texts_a, a, texts_b, sketch(texts_b, threshold, numbers, groups_b), threshold, parts)


def stand_ins(
    texts: Sequence[str],
    threshold: float = 0.8,
    *,
    numbers: Numbers = "distinct",
    groups: np.ndarray | None = None,
    anchors: int | None = None,
    parts: Sequence[Sequence[str]] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """For each text the first kept text it duplicates, or -1, and the similarity.

    Texts are judged in order: one is a duplicate if a kept text before it is near. So every dropped text is near the
    very one that is kept, which a chain of neighbours would not promise. Only the first `anchors` texts can be kept
    for others. `parts` are parts of each text, each of which has to be as near as the whole.
    """
    whole = sketch(texts, threshold, numbers, groups)
    anchors = len(texts) if anchors is None else anchors
    # Texts with the same words share every neighbour, so the first of them answers for all.
    _, first, member = np.unique(_mix(whole.whole * _GOLDEN + whole.stem), return_index=True, return_inverse=True)
    first_of, has_words = _small(first)[member], whole.whole != 0
    firsts = np.sort(first)
    del first, member
    own = [texts[int(row)] for row in firsts]
    sides = [(cut, cut) for cut in ([part[int(row)] for row in firsts] for part in parts)]
    pairs = _pairs(own, whole.cut(firsts), own, None, threshold, sides)
    twin = np.full(len(texts), -1, dtype=np.int64)
    similarity = np.zeros(len(texts))
    left, right = firsts[pairs.left], firsts[pairs.right]
    for at in np.lexsort((left, right)):
        earlier, later = int(left[at]), int(right[at])
        if twin[later] < 0 and twin[earlier] < 0 and earlier < anchors:
            twin[later], similarity[later] = earlier, pairs.similarity[at]
    for row in np.flatnonzero((first_of != np.arange(len(texts))) & has_words):
        head = int(first_of[row])
        if twin[head] >= 0:
            twin[row], similarity[row] = twin[head], similarity[head]
        elif head < anchors:
            twin[row], similarity[row] = head, 1.0
    return twin, similarity
