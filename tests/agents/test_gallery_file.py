"""A gallery is data from strangers: what cannot be used is named, and never stops the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from linearch.agents.gallery_file import GalleryError, read_gallery, reported_line

OURS = Path(__file__).parents[1] / "data" / "gallery.json"


def _written(folder: Path, content: Any) -> Path:
    file = folder / "gallery.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def _entry(**changes: Any) -> dict[str, Any]:
    return {"name": "one", "program": "class DeltaNet: ...", **changes}


def test_our_gallery_has_the_published_schema() -> None:
    fields = {
        *("name", "result", "program", "motivation", "svg_picture", "index", "parent"),
        *("name_new", "summary", "parameters", "score"),
    }
    assert all(set(entry) == fields for entry in json.loads(OURS.read_text()))
    gallery = read_gallery(OURS)
    assert (len(gallery.entries), gallery.problems) == (6, ())
    second = gallery.entries[1]
    assert (second.name, second.index, second.parent, second.score) == (
        *("delta_net_conv_gate", 2, 1),
        1.9,
    )
    assert second.reported["result"]["test"].startswith(",arc_c")
    assert reported_line(second) == (
        "Reported by its publishers: index 2, parent 1, score 1.900, 0.03M parameters."
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("{}", "JSON dict; a gallery is a list"),
        ("[]", "holds no usable entry: it is an empty list"),
        ('[{"name": "x"}]', r"no usable entry: entry 1 \(x\) has no program"),
        ("null", "JSON NoneType"),
    ],
)
def test_a_file_that_is_no_gallery_is_refused_in_one_sentence(
    tmp_path: Path, content: str, says: str
) -> None:
    with pytest.raises(GalleryError, match=says) as caught:
        read_gallery(_written(tmp_path, content))
    assert caught.value.exit_code == 2


def test_an_absent_file_a_folder_and_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="No such file"):
        read_gallery(tmp_path / "absent.json")
    with pytest.raises(GalleryError, match="Is a directory"):
        read_gallery(tmp_path)
    file = tmp_path / "gallery.json"
    file.write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(GalleryError, match="is not JSON"):
        read_gallery(file)


def test_one_bad_entry_never_stops_the_rest(tmp_path: Path) -> None:
    bad = [None, 3, [], {"name": "no program"}, {"name": "n", "program": 7}, _entry(program="  ")]
    gallery = read_gallery(_written(tmp_path, [*bad, _entry()]))
    assert [entry.name for entry in gallery.entries] == ["one"]
    assert len(gallery.problems) == len(bad)
    assert gallery.problems[0] == "entry 1 is None, not an object."


def test_fields_of_a_wrong_kind_are_missing_and_not_guessed(tmp_path: Path) -> None:
    entry = _entry(name=5, motivation=["x"], index="7", parent=True, score="high", result=None)
    (found,) = read_gallery(_written(tmp_path, [entry])).entries
    assert (found.name, found.motivation) == ("entry 1", "")
    assert (found.index, found.parent, found.score) == (None, None, None)
    text = json.dumps([_entry(score=float("nan"), index=10**30)])
    (found,) = read_gallery(_written(tmp_path, text)).entries
    assert (found.score, found.index) == (None, None)
    assert reported_line(found) == ""


def test_names_are_text(tmp_path: Path) -> None:
    names = ["../../etc/passwd", "nul\0byte", "<script>alert(1)</script>", "\x1b[31mred"]
    gallery = read_gallery(_written(tmp_path, [_entry(name=name) for name in names]))
    assert [entry.name for entry in gallery.entries] == names
