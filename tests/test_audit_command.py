"""`linearch audit` and `linearch import-asi-arch` as they are typed: output and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from linearch.agents import preflight
from linearch.cli import main
from linearch.config import RunConfig
from linearch.db import Store
from linearch.evaluator.results import GateResult, Judgement
from linearch.evaluator.sandbox.containment import Containment
from linearch.search_space.library import baseline_source
from linearch.search_space.source_check import source_hash

GALLERY = Path(__file__).parent / "data" / "gallery.json"
SMALL = {
    "model": {"d_model": 16, "param_budget": 12_000, "window": 8},
    "data": {"seq_len": 32, "val_windows": 16},
    "gates": {"canary_steps": 8},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def linearch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Types a command in a folder with a store of its own, in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINEARCH_STORE", str(tmp_path / "store.db"))

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["linearch", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        stdout, stderr = capsys.readouterr()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Done(returncode=code or 0, stdout=stdout, stderr=stderr)

    return run


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db") as store:
        yield store


def _stored(store: Store, source: str, **facts: Any) -> str:
    """An architecture of a run with small sizes."""
    config = RunConfig.model_validate({**RunConfig().model_dump(), **_small()})
    run_id = store.create_run(config.model_dump(mode="json"), {}, 0)
    row = store.add_architecture(
        run_id,
        **{
            **{"name": "mine", "motivation": "", "expectation": "", "origin": "grammar"},
            **{"source": source, "source_hash": source_hash(source), "pattern": "L"},
            **{"normalised_hash": source_hash(source), **facts},
        },
    )
    return row.id


def _small() -> dict[str, Any]:
    whole = RunConfig().model_dump()
    return {section: {**whole[section], **changes} for section, changes in SMALL.items()}


def _sound(store: Store, architecture_id: str) -> None:
    passed = GateResult(gate="causality", passed=True)
    store.record_judgement(architecture_id, Judgement(results=(passed,), sandbox="isolated"))


def test_a_stored_architecture_is_audited_under_its_runs_sizes(store: Store, linearch: Run) -> None:
    source = baseline_source("linear_attention") + "\n_MINE = 1\n"
    architecture_id = _stored(store, source)
    by_prefix = linearch("audit", architecture_id[:20], "--json")
    assert by_prefix.returncode == 0, by_prefix.stderr
    found = json.loads(by_prefix.stdout)
    assert found["is_sound"] is True
    assert found["n_params"] == pytest.approx(12_000, rel=0.02)
    assert (found["convention"], found["device"], found["released"]) == ("linearch", "cpu", False)
    assert found["sandbox"] in ("confined", "isolated")
    gates = {gate["gate"]: gate["passed"] for gate in found["gates"]}
    assert {"source", "causality", "batch", "prefix", "streaming", "canary"} <= gates.keys()
    assert set(gates.values()) == {True}
    assert "auditing mine" in by_prefix.stderr


def test_a_leak_fails_with_its_evidence_and_every_other_gate_is_still_asked(
    store: Store, linearch: Run
) -> None:
    program = _programs()["delta_net_block_mean"]
    _stored(store, program, name="leaky [/b] \x1b[31m")
    done = linearch("audit", _only_id(store))
    assert done.returncode == 1, done.stderr
    assert "UNSOUND by causality" in done.stdout
    assert "it sees the future" in done.stdout
    assert "n/a" in done.stdout  # streaming
    assert "\x1b[31m" not in done.stdout
    assert "leaky [/b]" in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("judged on cpu with the profile cpu in")


def _only_id(store: Store) -> str:
    (row,) = store.queries.leaderboard(store.runs()[0].id)
    return row.id


def _programs() -> dict[str, str]:
    return {entry["name"]: entry["program"] for entry in json.loads(GALLERY.read_text())}


def test_a_file_is_audited_whichever_convention_it_is_in(tmp_path: Path, linearch: Run) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import os\n")
    done = linearch("audit", "broken.py", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["is_sound"], found["gates"][0]["gate"]) == (1, False, "source")
    assert "`os` is not allowed" in found["verdict"]
    file.write_text(_programs()["delta_net_unbuilt"])
    done = linearch("audit", "broken.py", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["convention"]) == (1, "asi-arch")
    assert "extra_dim" in found["verdict"]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("gated_deltanett", "near are gated_deltanet"),
        ("absent.py", "Cannot read absent.py: No such file"),
        ("../../etc/nothing", "No file or baseline is called"),
        ("", "No file or baseline is called"),
        (".", "No file or baseline is called"),
        ("x" * 5000, "No file or baseline is called"),
        ("nul\0byte.py", "No file or baseline is called"),
    ],
)
def test_an_unknown_target_is_one_sentence_and_exit_code_2(
    linearch: Run, target: str, says: str
) -> None:
    done = linearch("audit", target)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_names_of_the_store_are_near_too(store: Store, linearch: Run) -> None:
    _stored(store, baseline_source("gla"), name="echo_delta_memory")
    done = linearch("audit", "echo_delta_memori")
    assert done.returncode == 2
    assert "near are echo_delta_memory" in done.stderr


def test_bytes_that_are_no_text_are_refused(tmp_path: Path, linearch: Run) -> None:
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    done = linearch("audit", "binary.py")
    assert (done.returncode, "not UTF-8" in done.stderr) == (2, True)


def test_release_is_for_what_waits_in_quarantine(store: Store, linearch: Run) -> None:
    architecture_id = _stored(store, baseline_source("linear_attention"), name="suspect")
    _sound(store, architecture_id)
    assert linearch("audit", "deltanet", "--release").returncode == 2
    done = linearch("audit", "suspect", "--release")
    assert (done.returncode, "not in quarantine" in done.stderr) == (2, True)
    store.quarantine(architecture_id, "too good to be believed")
    done = linearch("audit", "suspect", "--release", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["released"] is True
    assert store.architecture(architecture_id).state == "measured"


def test_what_fails_its_audit_stays_in_quarantine(store: Store, linearch: Run) -> None:
    program = _programs()["delta_net_batch_norm"]
    architecture_id = _stored(store, program, name="suspect")
    _sound(store, architecture_id)
    store.quarantine(architecture_id, "too good to be believed")
    done = linearch("audit", "suspect", "--release", "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["released"] is False
    assert store.architecture(architecture_id).state == "quarantined"


def test_a_device_that_is_not_there_is_exit_code_4(linearch: Run) -> None:
    done = linearch("audit", "deltanet", "--device", "cuda")
    if done.returncode == 0:
        pytest.skip("this machine has a CUDA device")
    assert (done.returncode, "no usable CUDA device" in done.stderr) == (4, True)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '[{"name": "x"}]'])
def test_a_wrong_gallery_is_one_sentence_and_stores_nothing(
    tmp_path: Path, linearch: Run, content: str
) -> None:
    (tmp_path / "gallery.json").write_text(content)
    done = linearch("import-asi-arch", "gallery.json")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "store.db").exists()


def test_a_gallery_is_stored_unaudited_on_demand(store: Store, linearch: Run) -> None:
    done = linearch("import-asi-arch", str(GALLERY), "--no-audit", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["architectures"]) == 6
    assert {item["state"] for item in found["architectures"]} == {"proposed"}
    (run,) = store.runs()
    assert (run.name, run.state) == ("asi-arch gallery", "finished")
    for command in (("leaderboard", "--all"), ("runs",), ("show", "delta_net_entropy")):
        shown = linearch(*command)
        assert shown.returncode == 0, shown.stderr
        assert "asi-arch" in shown.stdout


def test_help_names_both_commands(linearch: Run) -> None:
    shown = linearch("--help").stdout
    assert "audit" in shown
    assert "import-asi-arch" in shown


def test_where_nothing_can_be_contained_nothing_runs_unless_that_is_said(
    tmp_path: Path, linearch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = Containment(
        level="process", profile="strict", layers=(), missing=("landlock: gone",), failed_acts=()
    )
    monkeypatch.setattr(preflight, "probe_containment", lambda profile: bare)
    for command in (("audit", "deltanet"), ("import-asi-arch", str(GALLERY))):
        done = linearch(*command)
        assert (done.returncode, "landlock: gone" in done.stderr) == (4, True)
    assert not (tmp_path / "store.db").exists()
    (tmp_path / "broken.py").write_text("import os\n")
    done = linearch("audit", "broken.py", "--unsafe-no-sandbox")
    assert (done.returncode, "UNSOUND by source" in done.stdout) == (1, True)
