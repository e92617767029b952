"""Chunk sizes are read from the source's numbers."""

from __future__ import annotations

import pytest

from linearch.search_space.chunk_sizes import chunk_sizes_in


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("CHUNK = 64", (64,)),
        ("x.split(24, dim=1); y.unfold(1, 48, 1)", (24, 48)),
        ("size = 4 * 16", (16, 64)),
        ("size = 2 ** 5; other = 1 << 7", (32, 128)),
        ("a = 7; b = 8; c = 4096; d = 4097; e = -64", (8, 64, 4096)),
        ("base = 10_000.0; flag = True; name = '64'", ()),
        ("10 ** 10 ** 10 ** 10", (10,)),
        ("def broken(", ()),
    ],
)
def test_whole_numbers_of_a_chunks_size_are_found(source, expected):
    assert chunk_sizes_in(source) == expected


def test_a_flood_of_numbers_is_cut_off():
    assert len(chunk_sizes_in(f"table = {list(range(1000))}")) == 16
