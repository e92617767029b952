"""What this machine offers a search and what it lacks, found by looking, not by guessing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass

from .agents.preflight import cache_folder
from .db import Store, default_store_url
from .errors import LinearchError

_FREE_GIB = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that was looked at; `is_ok` is false only where a search could not run."""

    subject: str
    is_ok: bool
    text: str


def examine(store: str | None) -> list[Finding]:
    """Everything a search touches: versions, processor, GPU, disk, store, corpus, sandbox."""
    return [
        _python(),
        _torch(),
        _triton(),
        _processor(),
        _gpu(),
        _disk(),
        _store(store),
        _corpus(),
        _sandbox(),
    ]


def _python() -> Finding:
    is_ok = sys.version_info >= (3, 11)
    return Finding(subject="python", is_ok=is_ok, text=platform.python_version())


def _torch() -> Finding:
    import torch

    return Finding(subject="torch", is_ok=True, text=torch.__version__)


def _triton() -> Finding:
    if importlib.util.find_spec("triton") is None:
        return Finding(subject="triton", is_ok=True, text="absent; only GPU kernels need it")
    import triton

    return Finding(subject="triton", is_ok=True, text=triton.__version__)


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding(subject="cores", is_ok=True, text=f"{cores} ({platform.machine()})")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(subject="gpu", is_ok=True, text="none; searches use the cpu profile")
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Finding(subject="gpu", is_ok=True, text=names)


def _disk() -> Finding:
    free_gib = shutil.disk_usage(".").free / 2**30
    text = f"{free_gib:.1f} GiB free here"
    if free_gib < _FREE_GIB:
        text += f"; a search wants {_FREE_GIB:g}: free some, or change folder"
    return Finding(subject="disk", is_ok=free_gib >= _FREE_GIB, text=text)


def _store(store: str | None) -> Finding:
    try:
        with Store.open(store, create=False) as opened:
            text = f"{len(opened.runs())} runs in {opened.location}"
    except LinearchError as error:
        missing = store is None and not os.path.exists(default_store_url())
        text = "none yet; the first search makes it" if missing else str(error)
        return Finding(subject="store", is_ok=missing, text=text)
    return Finding(subject="store", is_ok=True, text=text)


def _corpus() -> Finding:
    from .config import DataConfig
    from .evaluator.corpus import load_corpus

    try:
        corpus = load_corpus(DataConfig(), cache_folder())
    except LinearchError as error:
        return Finding(subject="corpus", is_ok=False, text=str(error))
    megabytes = (corpus.train.n_bytes + corpus.val.n_bytes) / 1e6
    return Finding(subject="corpus", is_ok=True, text=f"{corpus.name}, {megabytes:.1f} MB")


def _sandbox() -> Finding:
    from .evaluator.sandbox.containment import probe_containment

    found = {profile: probe_containment(profile) for profile in ("strict", "compile")}
    strict = found["strict"]
    text = f"{strict.level}: {', '.join(strict.layers) or 'nothing'}"
    lacking = [f"not refused: {act}" for act in strict.failed_acts]
    if lacking or strict.missing:
        text += f"; missing: {'; '.join([*strict.missing, *lacking])}"
    if found["compile"].level != strict.level:
        text += f"; profile compile: {found['compile'].level}"
    return Finding(subject="sandbox", is_ok=strict.refusal is None, text=text)
