"""Starts the dashboard's server as a process of its own and stays until it ends.

Loads neither Streamlit nor torch here. The store travels in the child's environment.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType

from ..errors import PreflightError

HOST = "127.0.0.1"
_SCRIPT = Path(__file__).with_name("app.py")
_FLAGS = {
    "server.headless": "true",  # else it asks for a mail address on first use
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.toolbarMode": "minimal",
    "logger.level": "warning",
    "theme.light.primaryColor": "#4263eb",
    "theme.dark.primaryColor": "#748ffc",
}
_POLL_S = 0.1


def serve(store: str | None, port: int, open_browser: bool) -> int:
    """Serves on 127.0.0.1 until Ctrl-C or a SIGTERM, which end it with 0; else the server's code.

    `store` is a database file or URL, by default what `LINEARCH_STORE` names or runs/linearch.db;
    port 0 takes a free one. Raises PreflightError if the port is taken.
    """
    port = _free_port(port)
    environment = dict(os.environ) | ({"LINEARCH_STORE": store} if store else {})
    server = subprocess.Popen(_command(port), env=environment, stdout=subprocess.DEVNULL)
    with _forwarding_signals(server) as forwarded:
        if _is_up(server, port):
            url = f"http://{HOST}:{port}"
            print(f"dashboard  {url}  (Ctrl-C ends it)", flush=True)
            if open_browser:
                webbrowser.open(url)
        code = server.wait()
        return 0 if forwarded else code


def _command(port: int) -> list[str]:
    flags = {**_FLAGS, "server.address": HOST, "server.port": str(port)}
    # -P: the current folder may be the clone, whose subpackages must not become top-level modules
    command = [sys.executable, "-P", "-m", "streamlit", "run", str(_SCRIPT)]
    return command + [f"--{name}={value}" for name, value in flags.items()]


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PreflightError(
                f"Port {port} cannot be used ({error.strerror}); choose another with --port."
            ) from None
        return int(probe.getsockname()[1])


def _is_up(server: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until the server answers; False if it ended instead."""
    while server.poll() is None:
        if _answers(port):
            return True
        time.sleep(_POLL_S)
    return False


def _answers(port: int) -> bool:
    connection = HTTPConnection(HOST, port, timeout=5)  # urllib would go through a proxy
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == 200
    except (HTTPException, OSError):
        return False
    finally:
        connection.close()


@contextmanager
def _forwarding_signals(server: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """SIGINT and SIGTERM end the server, and through it this process. Yields those that came."""
    forwarded: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        forwarded.append(number)
        server.terminate()

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield forwarded
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
