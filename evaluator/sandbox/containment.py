"""How well candidates are contained here: what the self-test found, to be stored with results.

Light: it loads no torch, so a pre-flight can ask in a fraction of a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...errors import PreflightError

Level = Literal["none", "process", "confined", "isolated"]

# What every child has where there is Linux; the self-test need not look for it.
_ALWAYS = ("process", "empty-environment", "watchdog")
CONFINING = frozenset({"no-new-privileges", "landlock", "capabilities", "seccomp"})
_PROBE_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Containment:
    """`level`: "process" is a process with limits; "confined" the kernel's refusal of every act
    tried; "isolated" namespaces as well. `missing` says why a layer is not there, `failed_acts`
    what was tried and not refused.
    """

    level: Level
    profile: str
    layers: tuple[str, ...]
    missing: tuple[str, ...]
    failed_acts: tuple[str, ...]

    def require(self, *, allow_unsafe: bool) -> None:
        """Raises PreflightError if no untrusted code may run here, unless that is allowed."""
        if not allow_unsafe and (refusal := self.refusal) is not None:
            raise PreflightError(refusal)

    @property
    def refusal(self) -> str | None:
        """Why no untrusted code may run here, and what to do; None where it may."""
        if self.level in ("confined", "isolated"):
            return None
        lacks = [reason for reason in self.missing if not reason.startswith("namespaces")]
        lacks += [f"not refused: {act}" for act in self.failed_acts]
        return (
            f"Candidates cannot be confined here ({'; '.join(lacks)}): use a Linux kernel (6.2 or "
            "newer, x86-64 or arm64) with Landlock and seccomp, or allow both in the container, or "
            "say --unsafe-no-sandbox to run code from a model without them."
        )

    def as_stored(self) -> dict[str, Any]:
        return {"level": self.level, "profile": self.profile, "layers": list(self.layers)}


def found(
    profile: str, layers: Sequence[str], missing: Mapping[str, str], failed_acts: Sequence[str]
) -> Containment:
    """The level that follows from the layers applied and the acts that were not refused."""
    level: Level = "process"
    if not failed_acts and set(layers) >= CONFINING:
        level = "isolated" if "namespaces" in layers else "confined"
    return Containment(
        level=level,
        profile=profile,
        layers=(*_ALWAYS, *layers),
        missing=tuple(f"{layer}: {reason}" for layer, reason in missing.items()),
        failed_acts=tuple(failed_acts),
    )


def probe_containment(profile: str) -> Containment:
    """The self-test without a sandbox, in processes of its own; never raises."""
    if sys.platform != "linux":
        return _nothing(profile, f"this is {sys.platform}, and only Linux has the layers")
    command = [sys.executable, "-P", "-m", f"{__package__}.selftest", profile]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=_PROBE_S, check=True)
        values = json.loads(answer.stdout)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return _nothing(profile, f"the self-test failed: {said}")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return _nothing(profile, f"the self-test failed: {error}")
    return found(profile, values["layers"], values["missing"], values["failed_acts"])


def _nothing(profile: str, why: str) -> Containment:
    return Containment(
        level="none", profile=profile, layers=(), missing=(f"sandbox: {why}",), failed_acts=()
    )
