"""Hostile candidates: none gets what it wants, and each does once its layers are left out.

The museum is run without namespaces, so that what holds does not need them, and as root as well as
as an ordinary user.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hostile_files
import hostile_kernel
import hostile_processes
import pytest
from hostile_scene import Bare, HostileCase, Scene, is_readable_for_others

CASES = {
    case.name: case
    for case in (*hostile_files.CASES, *hostile_processes.CASES, *hostile_kernel.CASES)
}
_NOBODY = 65534
_FOR_NOBODY = ("test_museum", "test_containment", "test_artifacts", "test_processes")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as scene:
        if os.geteuid() == 0:
            other = tmp_path / "of-another"
            other.write_text(scene.secret)
            other.chmod(0o600)
            os.chown(other, _NOBODY, _NOBODY)
        yield scene


@pytest.mark.parametrize(
    ("case", "profile"),
    [(case, profile) for case in CASES.values() for profile in case.profiles],
    ids=lambda value: value.name if isinstance(value, HostileCase) else value,
)
def test_a_hostile_candidate_does_not_get_what_it_wants(
    case: HostileCase, profile: str, bare_zygote: Bare, scene: Scene
) -> None:
    bare_zygote.choose(profile, frozenset())
    assert not scene.attempt(bare_zygote, case, frozenset())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_does_once_its_layers_are_left_out(
    case: HostileCase, bare_zygote: Bare, scene: Scene
) -> None:
    if case.needs_root and os.geteuid() != 0:
        pytest.skip("only root could")
    if case.reads is not None and os.geteuid() != 0 and not is_readable_for_others(case.reads):
        pytest.skip("others may not read it anyway")
    if "architecture" in case.name and platform.machine() != "x86_64":
        pytest.skip("a table of x86-64's")
    bare_zygote.choose(case.profiles[0], case.stopped_by)
    assert scene.attempt(bare_zygote, case, case.stopped_by), (scene.failure, scene.printed)


@pytest.mark.parametrize("profile", ["strict", "compile"])
def test_a_folder_closed_to_its_owner_goes_with_its_child(
    profile: str, bare_zygote: Bare, scene: Scene
) -> None:
    bare_zygote.choose(profile, frozenset())
    made = []

    def is_made(scene: Scene) -> bool:
        made.append((scene.scratch / "closed").stat().st_mode & 0o777)
        return True

    close = HostileCase(
        name="a folder closed to its owner",
        source="os.mkdir('closed', 0o300); os.mkdir('closed/inner', 0o300)",
        stopped_by=frozenset(),
        succeeded=is_made,
    )
    assert scene.attempt(bare_zygote, close, frozenset())
    assert made == [0o300]
    assert not scene.scratch.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux")
def test_the_museum_holds_for_an_ordinary_user_too() -> None:
    """Nobody's Python may lie in a folder of root's: its pytest may read that, its children not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, _NOBODY, _NOBODY)
        identity = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
        reading = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
        options = ["-q", "-p", "no:cacheprovider", f"--basetemp={folder}/pytest"]
        done = subprocess.run(
            [
                *("setpriv", *identity, *reading),
                *(sys.executable, "-m", "pytest", *options),
                *(str(Path(__file__).with_name(f"{name}.py")) for name in _FOR_NOBODY),
            ],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "HOME": folder, "TMPDIR": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
