"""Whole units go to training, validation or the shard."""

from __future__ import annotations

from linearch.evaluator.data.documents import Document
from linearch.evaluator.data.splits import split_documents


def test_units_are_held_out_by_their_name_not_their_order():
    documents = [
        Document(name=f"{i}", unit=f"{i}", content=f"text {i}\n".encode() * 10) for i in range(50)
    ]

    split, reverse = split_documents(documents), split_documents(documents[::-1])

    assert set(split.val) == set(reverse.val)
    assert set(split.test) == set(reverse.test)
    assert not set(split.val) & set(split.test)
