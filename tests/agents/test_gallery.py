"""A gallery becomes a run of the store: provenance kept, every verdict stored, nothing trusted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import linearch
from linearch.agents import gallery as gallery_module
from linearch.agents.audit_workers import Job, audits
from linearch.agents.gallery import IMPORTED, ImportOutcome, run_import
from linearch.config import RunConfig
from linearch.db import Store
from linearch.errors import ConfigError, LinearchError, PreflightError, UntrustedSource
from linearch.evaluator.results import GateResult, Judgement

OURS = Path(__file__).parents[1] / "data" / "gallery.json"
SMALL = {
    "model": {"d_model": 16, "param_budget": 12_000, "window": 8},
    "data": {"seq_len": 32, "val_windows": 16},
    "gates": {"canary_steps": 8},
}


def _small(*_: object, **__: object) -> tuple[RunConfig, str]:
    whole = RunConfig().model_dump()
    sections = {section: {**whole[section], **changes} for section, changes in SMALL.items()}
    return RunConfig.model_validate({**whole, **sections}), "cpu"


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImportOutcome]:
    """Our gallery, imported and audited at small sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery_module, "import_config", _small)
        store = tmp_path_factory.mktemp("gallery") / "store.db"
        steps: list[tuple[int, int]] = []
        yield run_import(
            OURS,
            store=str(store),
            step=lambda done, total, _: steps.append((done, total)),
        )
    assert steps == [(done, 6) for done in range(1, 7)]


def _imported(folder: Path, *entries: dict[str, Any]) -> tuple[ImportOutcome, Path]:
    """Without an audit."""
    file, store = folder / "gallery.json", folder / "store.db"
    file.write_text(json.dumps(list(entries)))
    return run_import(file, store=str(store), audited=False), store


def _program(name: str) -> str:
    return str({entry["name"]: entry["program"] for entry in json.loads(OURS.read_text())}[name])


def test_sound_ones_are_sound_and_each_unsound_one_fails_its_gate(outcome: ImportOutcome) -> None:
    failed = {
        item.entry.name: [result.gate for result in item.audit.failures]
        for item in outcome.imported
        if item.audit is not None
    }
    sound = {name for name, gates in failed.items() if not gates}
    assert sound == {"delta_net_plain", "delta_net_conv_gate", "delta_net_entropy"}
    assert failed["delta_net_block_mean"][0] == "causality"
    assert failed["delta_net_batch_norm"][0] == "batch"
    assert failed["delta_net_unbuilt"] == ["build"]
    worst = {tally.check: (tally.n_failed, tally.worst) for tally in outcome.tallies}
    assert worst["batch"] == (1, "delta_net_batch_norm")
    assert worst["build"] == (1, "delta_net_unbuilt")


def test_every_verdict_is_in_the_store_with_where_it_came_from(outcome: ImportOutcome) -> None:
    with Store.open(outcome.store, create=False) as store:
        run = store.run(outcome.run_id)
        assert (run.name, run.state, run.owner) == ("asi-arch gallery", "finished", None)
        rows = {row.name: row for row in store.architectures(outcome.run_id)}
        assert {name: row.state for name, row in rows.items()} == {
            **dict.fromkeys(
                ("delta_net_plain", "delta_net_conv_gate", "delta_net_entropy"), "sound"
            ),
            **dict.fromkeys(
                ("delta_net_block_mean", "delta_net_batch_norm", "delta_net_unbuilt"), "rejected"
            ),
        }
        detail = store.queries.architecture("delta_net_entropy")
        assert [parent.name for parent in detail.parents] == ["delta_net_conv_gate"]
        assert [gate.passed for gate in detail.gates if gate.gate == "streaming"] == [None]
        assert all(gate.sandbox for gate in detail.gates)
        assert ["gate_entropy" in note.body for note in detail.analyses] == [True]
        assert "index 5, parent 2, score 2.200" in detail.architecture.expectation
        events = store.queries.events(outcome.run_id, kinds=[IMPORTED])
        reported = {event.data["name"]: event.data for event in events}
        assert reported["delta_net_entropy"]["reported"]["result"]["train"].startswith(",1,100")
        assert reported["delta_net_entropy"]["architecture_id"] == rows["delta_net_entropy"].id
        assert len(store.queries.leaderboard(outcome.run_id)) == 6
        assert store.queries.funnel(outcome.run_id).sound == 3


def test_what_passed_its_audit_is_taken_home_behind_the_adapter(outcome: ImportOutcome) -> None:
    mixer_class = linearch.load_mixer("delta_net_entropy", store=outcome.store)
    y, state = mixer_class(16, 2, 0, 2)(torch.randn(1, 5, 16))
    assert (y.shape, state) == ((1, 5, 16), {})
    model = linearch.load_model("delta_net_entropy", store=outcome.store)
    assert model(torch.zeros(1, 4, dtype=torch.int64))[0].shape == (1, 4, 16)
    for leak in ("delta_net_block_mean", "delta_net_unbuilt"):
        with pytest.raises(UntrustedSource):
            linearch.load_mixer(leak, store=outcome.store)
    assert linearch.load_mixer("delta_net_block_mean", store=outcome.store, trust=True)


def test_an_imported_one_is_not_exported(outcome: ImportOutcome, tmp_path: Path) -> None:
    from linearch.api import export_architecture

    with pytest.raises(LinearchError, match="cannot be exported"):
        export_architecture("delta_net_entropy", tmp_path / "out", store=outcome.store)


def test_duplicates_and_unreadable_programs_do_not_stop_the_rest(tmp_path: Path) -> None:
    plain = _program("delta_net_plain")
    outcome, file = _imported(
        tmp_path,
        {"name": "first", "program": plain, "index": 1},
        {"name": "again", "program": "# the same\n" + plain, "index": 2},
        {"name": "broken", "program": "class DeltaNet(:", "index": 3},
        {"name": "surrogate", "program": "# \ud800", "index": 4},
        {"name": "large", "program": "#" * 70_000, "index": 5},
    )
    first, again, broken, surrogate, large = outcome.imported
    assert first.row is not None
    assert again.duplicate_of == first.row.id
    assert "not valid Python" in (broken.rejection or "")
    assert "UTF-8" in (surrogate.rejection or "")
    assert "70,000 bytes" in (large.rejection or "")
    assert [(tally.check, tally.n_failed) for tally in outcome.tallies] == [("source", 3)]
    with Store.open(file) as store:
        assert store.queries.funnel(outcome.run_id).duplicates == 1
        rejected = store.architectures(outcome.run_id, states=["rejected"])
        assert {row.rejected_by for row in rejected} == {"source"}


@pytest.mark.parametrize("name", ["../../evil", "nul\0byte", "<script>alert(1)</script>", "[/red]"])
def test_names_are_stored_as_text(tmp_path: Path, name: str) -> None:
    entry = {"name": name, "program": _program("delta_net_plain"), "motivation": name}
    outcome, file = _imported(tmp_path, entry)
    with Store.open(file) as store:
        (row,) = store.queries.leaderboard(outcome.run_id)
    assert row.name == name.replace("\0", "\ufffd")
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [
        *("gallery.json", "store.db"),
    ]


class ScriptedJudge:
    """Finds everything sound, or fails as a machine without a sandbox does."""

    infra_error: str | None = None

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> ScriptedJudge:
        return self

    def __exit__(self, *_: object) -> None: ...

    def audit(self, *_: object) -> Judgement:
        results = () if self.infra_error else (GateResult(gate="causality", passed=True),)
        return Judgement(results=results, infra_error=self.infra_error)


def test_a_fault_of_the_machinery_leaves_an_architecture_unjudged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linearch.evaluator.judge.Judge", ScriptedJudge)
    monkeypatch.setattr(ScriptedJudge, "infra_error", "the zygote died")
    with pytest.raises(PreflightError, match="the zygote died"):
        run_import(OURS, store=str(tmp_path / "store.db"))
    with Store.open(tmp_path / "store.db") as store:
        (run,) = store.runs()
        assert run.state == "failed"
        assert {row.state for row in store.architectures(run.id)} == {"proposed"}


def test_several_processes_judge_at_once(tmp_path: Path) -> None:
    programs = [_program("delta_net_unbuilt"), _program("delta_net_batch_norm")]
    jobs = [Job(place=i, name=f"n{i}", source=source) for i, source in enumerate(programs)]
    found = dict(audits(jobs, _small()[0], device="cpu", workers=2))
    failed = {place: audit.failures[0].gate for place, audit in found.items()}
    assert failed == {0: "build", 1: "batch"}


def test_an_interrupted_import_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("linearch.evaluator.judge.Judge", ScriptedJudge)
    outcome = run_import(OURS, store=str(tmp_path / "store.db"), step=interrupt)
    assert outcome.state == "interrupted"
    with Store.open(tmp_path / "store.db") as store:
        assert store.run(outcome.run_id).state == "interrupted"
        states = [row.state for row in store.architectures(outcome.run_id)]
        assert 0 < states.count("proposed") < 6


def test_a_gallery_cannot_be_resumed_as_a_search(
    outcome: ImportOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    from linearch.agents.start import SearchRequest, run_search

    class Silent:
        def update(self, snapshot: object) -> None: ...
        def note(self, text: str) -> None: ...

    def never(*_: object, **__: object) -> str:
        raise AssertionError("a search was started")

    monkeypatch.setattr("linearch.agents.start.check_before_start", never)
    with pytest.raises(ConfigError, match="gallery"):
        run_search(SearchRequest(store=outcome.store, resume=outcome.run_id), Silent())
