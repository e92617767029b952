"""Which documents are for training, for validation and for the test shard: whole units of them.

Validation decides what a search keeps; the test shard is opened once, for finalists, so that no
choice was made by it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .documents import STDLIB, Document, read_documents

SEPARATOR = b"\n\n"  # between the documents of a part
_HELD_OUT_SHARE = 0.08  # of all bytes, for validation and again for the test shard
_HELD_OUT_RANGE = (0.05, 0.10)
_SMALL_UNIT = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """The texts of each part of a corpus."""

    train: list[bytes]
    val: list[bytes]
    test: list[bytes]

    def by_name(self) -> dict[str, list[bytes]]:
        return {"train": self.train, "val": self.val, "test": self.test}


def split_documents(documents: Sequence[Document]) -> Split:
    """Whole units, drawn in the order of a hash of their names: for validation, then for the shard.

    Units go to either while it stays within 10 % of the bytes, up to 8 %. Where no choice of whole
    units reaches 5 % for both (a single file), the last 8 % of all bytes, from a line's start on,
    are the shard and the 8 % before them validation.
    """
    for_val, for_test = _held_out_units(documents)
    held_out = for_val | for_test
    split = Split(
        train=[one.content for one in documents if one.unit not in held_out],
        val=[one.content for one in documents if one.unit in for_val],
        test=[one.content for one in documents if one.unit in for_test],
    )
    least = _HELD_OUT_RANGE[0] * sum(len(document.content) for document in documents)
    if min(sum(map(len, split.val)), sum(map(len, split.test))) < least:
        return _cut_tail(SEPARATOR.join(document.content for document in documents))
    return split


def held_out_modules() -> frozenset[str]:
    """The source files whose text the default corpus holds out, named from the standard library's
    folder: no candidate may read them. Raises PreflightError where there is no such source.
    """
    documents = list(read_documents(STDLIB, text_field=""))
    for_val, for_test = _held_out_units(documents)
    return frozenset(one.name for one in documents if one.unit in for_val | for_test)


def _held_out_units(documents: Iterable[Document]) -> tuple[set[str], set[str]]:
    """The units for validation and those for the test shard, which have none in common."""
    sizes: defaultdict[str, int] = defaultdict(int)
    for document in documents:
        sizes[document.unit] += len(document.content)
    total = sum(sizes.values())
    in_order = sorted(sizes, key=lambda unit: hashlib.sha256(unit.encode()).digest())
    for_val = _fill(in_order, sizes, total)
    others = [unit for unit in in_order if unit not in for_val]
    small = [unit for unit in others if sizes[unit] <= _SMALL_UNIT * total]
    # Of many units where there are that many: one large package says little about others.
    for_test = _fill(small, sizes, total)
    if sum(sizes[unit] for unit in for_test) < _HELD_OUT_RANGE[0] * total:
        for_test = _fill(others, sizes, total)
    return for_val, for_test


def _fill(units: Iterable[str], sizes: Mapping[str, int], total: int) -> set[str]:
    """Units in their order, without those that are too large, until they are enough."""
    chosen: set[str] = set()
    n_bytes = 0
    for unit in units:
        if n_bytes + sizes[unit] <= _HELD_OUT_RANGE[1] * total:
            chosen.add(unit)
            n_bytes += sizes[unit]
        if n_bytes >= _HELD_OUT_SHARE * total:
            break
    return chosen


def _cut_tail(text: bytes) -> Split:
    share = int(_HELD_OUT_SHARE * len(text))
    val, test = (_line_start(text, len(text) - n * share) for n in (2, 1))
    return Split(train=[text[:val]], val=[text[val:test]], test=[text[test:]])


def _line_start(text: bytes, cut: int) -> int:
    """The first line's start from `cut` on, if it is near; else `cut`."""
    line_end = text.find(b"\n", cut, cut + len(text) // 50)
    return line_end + 1 if line_end >= 0 else cut
