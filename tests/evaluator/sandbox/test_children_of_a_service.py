"""Children that share a GPU by a service, and what it hears of them; a script stands in for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from linearch.evaluator.mps import PIPES
from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.limits import Limits
from linearch.evaluator.sandbox.supervisor import Sandbox

MakeSource = Callable[..., str]

# Serves whoever has a process.
_CONTROL = """#!/bin/sh
read command
echo "$command" >> "{asked}"
case $command in
  get_server_list) echo 10;;
  get_client_list*) ls /proc;;
esac
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of what the service was asked."""
    folder, asked = tmp_path / "bin", tmp_path / "asked"
    folder.mkdir()
    control = folder / "nvidia-cuda-mps-control"
    control.write_text(_CONTROL.format(asked=asked))
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    asked.touch()
    return asked


@pytest.fixture
def sandbox(tmp_path: Path, asked: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path / "box", mps={PIPES: str(tmp_path / "pipes")}) as sandbox:
        yield sandbox


def test_one_that_is_stopped_at_work_is_ended_at_the_service_before_it_is_killed(
    sandbox: Sandbox, asked: Path, limits: Limits, hostile_source: MakeSource
) -> None:
    endless = hostile_source(top="time.sleep(60)")
    with sandbox.spawn(replace(limits, wall_s=2)) as child:
        pid = _pid_of(child.process)
        with pytest.raises(ChildFailed) as failed:
            child.call("load", {"source": endless, "convention": "linearch"})
    assert failed.value.kind == "timeout"
    assert asked.read_text().splitlines()[-1] == f"terminate_client 10 {pid}"


def test_one_that_is_done_is_only_killed(
    sandbox: Sandbox, asked: Path, limits: Limits, hostile_source: MakeSource
) -> None:
    with sandbox.spawn(limits) as child:
        child.call("load", {"source": hostile_source(), "convention": "linearch"})
    assert asked.read_text() == ""


def test_one_that_has_told_what_its_candidate_raised_is_only_killed(
    sandbox: Sandbox, asked: Path, limits: Limits, hostile_source: MakeSource
) -> None:
    source = hostile_source(top="raise LookupError")
    with sandbox.spawn(limits) as child, pytest.raises(ChildFailed) as failed:
        child.call("load", {"source": source, "convention": "linearch"})
    assert failed.value.kind == "raised"
    assert asked.read_text() == ""


def _pid_of(process: int) -> int:
    """Of a pidfd."""
    lines = Path(f"/proc/self/fdinfo/{process}").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("Pid:")))
