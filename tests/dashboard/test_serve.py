"""Starting the server: what is refused before anything starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

import linearch.dashboard
from linearch.dashboard.serve import HOST, serve
from linearch.errors import PreflightError

SCRIPT = Path(linearch.dashboard.__file__).with_name("app.py")


def test_a_taken_port_is_refused_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        with pytest.raises(PreflightError, match="choose another with --port"):
            serve(store=None, port=taken.getsockname()[1], open_browser=False)


def test_a_server_that_cannot_start_gives_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert serve(store=None, port=0, open_browser=False) == 1


def test_starting_the_server_loads_neither_streamlit_nor_torch() -> None:
    code = (
        "import sys, linearch.dashboard.serve; "
        "print([name for name in ('streamlit', 'torch', 'pandas') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_no_page_needs_torch(store_file: Path) -> None:
    code = (
        "import sys; from streamlit.testing.v1 import AppTest; "
        "app = AppTest.from_file(sys.argv[1], default_timeout=60).run(); "
        "titles = [app.switch_page(page).run().title[0].value for page in sys.argv[2:]]; "
        "assert not app.exception, app.exception; print(titles, 'torch' in sys.modules)"
    )
    arguments = [str(SCRIPT), "architecture.py", "lineage.py"]
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "['Architecture', 'Lineage'] False"
