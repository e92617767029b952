"""Asks a fork of this process: what answering takes does not stay in this one's memory."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def said_by_a_fork(answer: Callable[[], Any], what: str) -> Any:
    """What `answer` returns there, plain data: `what` is asked for. Raises RuntimeError if that
    fails, having told why.
    """
    receiving, sending = os.pipe()
    fork = os.fork()
    if fork == 0:
        status = 1
        try:
            os.close(receiving)
            with os.fdopen(sending, "w") as pipe:
                json.dump(answer(), pipe)
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        said = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]) != 0:
        raise RuntimeError(f"{what} could not be found out")
    return json.loads(said)
