"""The one place where a process gives up what a candidate must not have, layer by layer.

A layer that cannot be had is left out and named in what is returned: the supervisor compares that
with what the self-test found, so no process runs a candidate with less than was promised.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from .capabilities import drop_capabilities, forbid_new_privileges
from .kernel import LayerMissing
from .landlock import landlock_abi, restrict_files, scopes_signals
from .limits import Limits, limit_resources
from .places import Places, allowed_files
from .seccomp import Profile, restrict_calls

Started = TypeVar("Started")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What a child may reach. `without` leaves layers out, for tests that show what each is for."""

    profile: Profile
    device: str  # "cpu" or "cuda"
    scratch: str
    places: Places
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Confinement:
    """Layers in the order in which they were applied, and why others were not."""

    layers: tuple[str, ...]
    missing: dict[str, str]


def confine(
    limits: Limits, plan: Plan, start: Callable[[], Started]
) -> tuple[Started, Confinement]:
    """Locks this process down for good, calling `start` on the way; it must have one thread.

    What holds for a thread comes before `start`, so that the threads of CUDA, on which a candidate
    can have its functions called, inherit it. The filter on system calls holds for all threads and
    comes after, for CUDA's start needs calls that a candidate does not.
    """
    steps = _Steps(plan.without)
    abi = 0 if "landlock" in plan.without else landlock_abi()
    files = allowed_files(plan.places, plan.scratch, plan.profile, plan.device)
    steps.take("rlimits", lambda: limit_resources(limits))
    steps.take("no-new-privileges", forbid_new_privileges)
    steps.take("landlock", lambda: restrict_files(files))
    steps.take("capabilities", drop_capabilities)  # which may be what made the places readable
    started = start()
    scoped = scopes_signals(abi)
    steps.take(
        "seccomp",
        lambda: restrict_calls(
            plan.profile,
            os.getpid(),
            signals_are_scoped=scoped,
            shares_memory=plan.device == "cuda",
        ),
    )
    return started, steps.confinement()


class _Steps:
    def __init__(self, without: frozenset[str]) -> None:
        self._without = without
        self._layers: list[str] = []
        self._missing: dict[str, str] = {}

    def take(self, name: str, step: Callable[[], None]) -> None:
        if name in self._without:
            self._missing[name] = "left out"
            return
        try:
            step()
            self._layers.append(name)
        except LayerMissing as reason:
            self._missing[name] = str(reason)

    def confinement(self) -> Confinement:
        return Confinement(layers=tuple(self._layers), missing=self._missing)
