"""The example mixers of the documentation are candidates that stream, and do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from linearch.search_space.library import baseline_source
from linearch.search_space.loading import load_mixer_class
from linearch.search_space.source_check import check_source

EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_passes_the_source_check_and_streams(path: Path) -> None:
    source = path.read_text()
    check_source(source)
    mixer = load_mixer_class(source, path.stem)(16, 2, 0, 1)
    x = torch.randn(2, 12, 16)
    whole, _ = mixer(x)
    first, state = mixer(x[:, :5])
    rest, _ = mixer(x[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, rest], dim=1), whole, rtol=1e-4, atol=1e-5)


def test_negative_deltanet_writes_twice_as_strongly_as_the_librarys() -> None:
    (path,) = [path for path in EXAMPLES if path.stem == "negative_deltanet"]
    ours = load_mixer_class(path.read_text(), "ours")(16, 2, 0, 1)
    theirs = load_mixer_class(baseline_source("deltanet"), "theirs")(16, 2, 0, 1)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 1, 16)
    _, ours_after = ours(x)
    _, theirs_after = theirs(x)
    torch.testing.assert_close(ours_after["memory"], 2 * theirs_after["memory"])
