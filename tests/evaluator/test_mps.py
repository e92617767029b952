"""The multi-process service's start, use and end, with a program that only says it is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from linearch.evaluator.mps import PIPES, MpsUnavailable, end_client, find_control, shared_gpu

# Lives as a file with its own process id, as the real one does; `quit` removes it.
_CONTROL = """#!/bin/sh
pid="$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid"
if [ "$1" = -d ]; then
  echo $$ > "$pid"
  echo "${CUDA_VISIBLE_DEVICES-all}" > "$ASKED-devices"
  exit 0
fi
[ -e "$pid" ] || { echo "Cannot find MPS control daemon process"; exit 1; }
read command
echo "$command" >> "$ASKED"
case $command in quit*) rm "$pid";; esac
"""

# Two servers, of which the second has the clients 30 and 31.
_WITH_CLIENTS = """#!/bin/sh
read command
echo "$command" >> "$ASKED"
case $command in
  get_server_list) printf '10\\n20\\n';;
  "get_client_list 20") printf '30\\n31\\n';;
esac
"""

MakeEnvironment = Callable[[str], dict[str, str]]


@pytest.fixture
def environment(tmp_path: Path) -> MakeEnvironment:
    """With a program of this text on the path; what it is asked for is in the file `asked`."""

    def make(program: str) -> dict[str, str]:
        control = tmp_path / "nvidia-cuda-mps-control"
        control.write_text(program)
        control.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(tmp_path / "asked")}

    return make


def test_a_service_lasts_as_long_as_its_context(
    environment: MakeEnvironment, tmp_path: Path
) -> None:
    with shared_gpu(environment(_CONTROL)) as variables:
        (pipes,) = map(Path, variables.values())
        assert list(variables) == ["CUDA_MPS_PIPE_DIRECTORY"]
        assert len(str(pipes)) < 80
        assert (pipes / "nvidia-cuda-mps-control.pid").exists()
    assert not pipes.exists()
    assert (tmp_path / "asked").read_text().splitlines() == ["get_server_list", "quit -t 5"]


def test_a_service_sees_all_gpus_so_that_its_clients_numbers_stay_true(
    environment: MakeEnvironment, tmp_path: Path
) -> None:
    with shared_gpu(environment(_CONTROL) | {"CUDA_VISIBLE_DEVICES": "2"}):
        assert (tmp_path / "asked-devices").read_text().split() == ["all"]


def test_a_service_ends_with_an_exception_too(environment: MakeEnvironment, tmp_path: Path) -> None:
    with pytest.raises(LookupError), shared_gpu(environment(_CONTROL)):
        raise LookupError
    assert "quit -t 5" in (tmp_path / "asked").read_text()


def test_a_service_of_the_users_is_used_and_left_alone(
    environment: MakeEnvironment, tmp_path: Path
) -> None:
    theirs = environment(_CONTROL) | {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text("1")
    with shared_gpu(theirs) as variables:
        assert variables == {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert "quit" not in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(("pid", "asked"), [(31, ["terminate_client 20 31"]), (3, [])])
def test_only_a_process_that_a_service_serves_is_ended_there(
    pid: int,
    asked: list[str],
    environment: MakeEnvironment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment(_WITH_CLIENTS).items():
        monkeypatch.setenv(name, value)
    assert end_client({PIPES: str(tmp_path)}, pid) is bool(asked)
    commands = (tmp_path / "asked").read_text().splitlines()
    assert [command for command in commands if command.startswith("terminate")] == asked


def test_a_machine_without_the_program_is_told_so(tmp_path: Path) -> None:
    with (
        pytest.raises(MpsUnavailable, match="not installed"),
        shared_gpu({"PATH": str(tmp_path)}),
    ):
        pass


def test_the_program_is_found_beside_the_drivers_libraries(
    environment: MakeEnvironment, tmp_path: Path
) -> None:
    environment(_CONTROL)
    (tmp_path / "bin").mkdir()
    control = (tmp_path / "nvidia-cuda-mps-control").rename(
        tmp_path / "bin" / "nvidia-cuda-mps-control"
    )
    found = find_control({"PATH": "/nowhere", "LD_LIBRARY_PATH": f"/x:{tmp_path / 'lib64'}"})
    assert found == control


@pytest.mark.parametrize("program", ["#!/bin/sh\necho broken >&2; exit 1\n", "no program"])
def test_a_program_that_fails_is_quoted(program: str, environment: MakeEnvironment) -> None:
    with (
        pytest.raises(MpsUnavailable, match=r"broken|does not answer"),
        shared_gpu(environment(program)),
    ):
        pass
