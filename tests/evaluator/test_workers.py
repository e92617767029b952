"""How a run's workers come to share a GPU under MPS, or to take turns, with what may go wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from linearch.config import RunConfig, WorkerConfig
from linearch.evaluator import workers
from linearch.evaluator.company import CompanyPool
from linearch.evaluator.ray_pool import Finished, JudgeJob, _Worker
from linearch.evaluator.results import GateResult, Judgement, TrialSpec

SOUND = Judgement(results=(GateResult(gate="shape", passed=True),))
UNSOUND = Judgement(results=(GateResult(gate="shape", passed=False, reason="CUDA error"),))
SHARED = RunConfig(workers=WorkerConfig(gpu_sharing="mps", trials_at_once=4))

# Says what it is asked and which variables it holds, and lives as a file.
_CONTROL = """#!/bin/sh
pid="$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid"
env >> "{folder}/environment"
if [ "$1" = -d ]; then echo $$ > "$pid"; exit 0; fi
read command
echo "$command" >> "{folder}/asked"
case $command in quit*) rm "$pid";; get_server_list) cat "{folder}/servers";; esac
"""


class Pools:
    """Stands for RayPool: makes pools that answer every job with `value`, and keeps them."""

    def __init__(self, value: Judgement | None = SOUND) -> None:
        self._value = value
        self.made: list[Pool] = []

    def __call__(self, config: RunConfig, *, mps: Mapping[str, str] | None, **_: Any) -> Pool:
        self.made.append(Pool(config.workers.trials_at_once, mps, self._value))
        return self.made[-1]


class Pool:
    def __init__(self, slots: int, mps: Mapping[str, str] | None, value: Judgement | None) -> None:
        self.slots, self.mps, self._value = slots, mps, value
        self.jobs: list[JudgeJob] = []
        self.is_closed = False

    @property
    def idle(self) -> int:
        return self.slots - len(self.jobs)

    def submit(self, job: JudgeJob) -> None:
        self.jobs.append(job)

    def wait(self, timeout_s: float) -> list[Finished]:
        del timeout_s
        return [Finished(job=self.jobs.pop(), value=self._value)]

    def close(self) -> None:
        self.is_closed = True


Open = Callable[..., Any]


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a program that says it is MPS's."""
    program = tmp_path / "nvidia-cuda-mps-control"
    program.write_text(_CONTROL.format(folder=tmp_path))
    program.chmod(0o755)
    (tmp_path / "servers").write_text("4711\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    return tmp_path


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_workers(said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    def opened(pools: Pools, config: RunConfig = SHARED, **options: Any) -> Any:
        monkeypatch.setattr(workers, "RayPool", pools)
        asked = {"device": "cuda", "address": None, **options}
        return workers.open_workers(config, folder=tmp_path, say=said.append, **asked)

    return opened


def test_a_service_lasts_as_long_as_the_workers_that_find_it(
    open_workers: Open, control: Path, said: list[str]
) -> None:
    pools = Pools()
    with open_workers(pools) as pool:
        (made,) = pools.made
        assert isinstance(pool, CompanyPool)
        assert (pool.slots, pool.idle) == (4, 4)
        assert made.mps is not None
        assert Path(made.mps["CUDA_MPS_PIPE_DIRECTORY"]).is_dir()
        assert "quit" not in (control / "asked").read_text()
    assert made.is_closed
    assert "quit" in (control / "asked").read_text()
    assert said == ["trials share the GPU under MPS"]


def test_a_worker_hands_the_service_on_and_says_so_with_its_results(
    config: RunConfig, spec: TrialSpec, tmp_path: Path
) -> None:
    mps = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    worker = _Worker(config.model_dump(), "cpu", str(tmp_path), mps)
    try:
        assert worker.trial(spec, 0.0).environment["mps"] is True
        assert worker._judge._sandbox._environment().items() >= mps.items()
    finally:
        worker._judge.close()


def test_an_error_ends_workers_and_service(open_workers: Open, control: Path) -> None:
    pools = Pools()
    with pytest.raises(LookupError), open_workers(pools):
        raise LookupError
    assert pools.made[0].is_closed
    assert "quit" in (control / "asked").read_text()


def test_workers_are_closed_before_their_service_ends(
    open_workers: Open, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_then: list[str] = []
    monkeypatch.setattr(
        Pool, "close", lambda self: asked_then.append((control / "asked").read_text())
    )
    with open_workers(Pools()):
        pass
    assert "quit" not in asked_then[0]


def test_the_service_holds_no_key(
    open_workers: Open, control: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hidden")
    with open_workers(Pools()):
        assert os.environ["OPENAI_API_KEY"] == "hidden"
    assert "hidden" not in (control / "environment").read_text()


@pytest.mark.parametrize(
    ("value", "why"), [(UNSOUND, "fails the gate 'shape': CUDA error"), (None, "its worker died")]
)
def test_where_a_known_mixer_does_not_run_under_mps_trials_take_turns(
    value: Judgement | None, why: str, open_workers: Open, control: Path, said: list[str]
) -> None:
    pools = Pools(value)
    with open_workers(pools) as pool:
        shared, in_turns = pools.made
        assert pool is in_turns
        assert (shared.is_closed, in_turns.is_closed) == (True, False)
        assert in_turns.mps is None
        assert "quit" in (control / "asked").read_text()
    assert in_turns.is_closed
    assert len(said) == 1
    assert said[0].startswith("trials take turns on the GPU")
    assert why in said[0]


def test_where_no_child_has_found_the_service_trials_take_turns(
    open_workers: Open, control: Path, said: list[str]
) -> None:
    (control / "servers").write_text("")
    with open_workers(Pools()) as pool:
        assert pool.mps is None
    assert said == ["trials take turns on the GPU: CUDA does not find MPS in the sandbox"]


def test_a_machine_without_mps_says_so_and_takes_turns(
    open_workers: Open, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    with open_workers(Pools()) as pool:
        assert pool.mps is None
    assert said == ["trials take turns on the GPU: nvidia-cuda-mps-control is not installed"]


def test_a_service_that_does_not_end_is_told_of_and_fails_no_run(
    open_workers: Open, control: Path, said: list[str]
) -> None:
    with open_workers(Pools()):
        (control / "nvidia-cuda-mps-control").write_text("#!/bin/sh\necho stuck >&2; exit 1\n")
    assert said[-1] == "nvidia-cuda-mps-control failed: stuck"


def test_a_cluster_takes_turns_with_a_sentence(
    open_workers: Open, control: Path, said: list[str]
) -> None:
    with open_workers(Pools(), address="ray://there:10001") as pool:
        assert pool.mps is None
    assert "cluster" in said[0]
    assert not (control / "asked").exists()


@pytest.mark.parametrize(
    ("config", "device"),
    [
        (RunConfig(workers=WorkerConfig(trials_at_once=4)), "cuda"),
        (RunConfig(workers=WorkerConfig(gpu_sharing="mps", trials_at_once=1)), "cuda"),
        (SHARED, "cpu"),
    ],
)
def test_nothing_is_started_where_nothing_is_shared(
    config: RunConfig, device: str, open_workers: Open, control: Path, said: list[str]
) -> None:
    with open_workers(Pools(), config, device=device) as pool:
        assert pool.mps is None
    assert said == []
    assert not (control / "asked").exists()
