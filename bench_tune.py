"""What `linearch bench tune` does and prints: configurations tried on this GPU, winners kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING

from .bench import parse_shape
from .errors import ConfigError, PreflightError

if TYPE_CHECKING:
    from .kernels.bench_cases import Shape
    from .kernels.triton.config_table import Config, Entry, Launch
    from .kernels.tune import Times, Tried
    from .kernels.tune_trials import Problem

_SHAPES: tuple[Shape, ...] = ((32, 2048, 16, 128), (32, 2048, 8, 64), (32, 2048, 8, 32))
_HEADER = f"{'kernel, size class':46}{'block, compiled':42}{'fwd µs':>9}{'f+b µs':>9}"


def run_tune(*, operations: list[str], shapes: list[str], jobs: int | None, write: bool) -> None:
    """Prints rows as they are measured; with `write` the winners go into the package's table."""
    import torch

    wanted = [parse_shape(text) for text in shapes] or list(_SHAPES)
    if len({dim for *_, dim in wanted}) < len(wanted):
        raise ConfigError("two --shape have one K: a size class has one configuration")
    if not torch.cuda.is_available() or torch.version.cuda is None:
        raise PreflightError("linearch bench tune needs an NVIDIA GPU, and there is none here")
    problems = _problems(operations, wanted)

    from .kernels.triton import config_table
    from .kernels.tune import Times

    major, minor = torch.cuda.get_device_capability()
    arch = 10 * major + minor
    print(f"{torch.cuda.get_device_name()}, sm_{arch}, torch {torch.__version__}", flush=True)
    failures = _compile(problems, arch, jobs or os.cpu_count() or 1)
    print(_HEADER)
    table = config_table.read()
    n_winners = 0
    for problem in problems:
        kept: list[Times] = []  # today's, and with each winner
        for row in _search(problem, failures):
            print(line(row), flush=True)
            if isinstance(row.outcome, Times) and (row.is_winner or not kept):
                kept.append(row.outcome)
            if row.is_winner:
                table.setdefault(f"sm_{arch}", {})[row.launch] = _entry(row, problem.shape)
                n_winners += 1
                if write:  # at once: a run that is cut short has not been for nothing
                    config_table.write(table)
        for times, when in zip(kept[:1] + kept[1:][-1:], ("before", "after"), strict=False):
            print(f"{problem.operation} {problem.gate}, {when}: {kernels_line(times)}", flush=True)
    where = f"written to {config_table.PATH}" if write else "not written: --write does"
    print(f"{n_winners} faster configurations, {where}")


def _problems(operations: list[str], shapes: list[Shape]) -> list[Problem]:
    from .kernels.triton.alternatives import PROBLEMS
    from .kernels.tune_trials import Problem

    names = [f"{operation} {gate}" for operation, gate in PROBLEMS]
    chosen = [name for name in names if name.startswith(tuple(operations or [""]))]
    if not chosen:
        raise ConfigError(f"--operation fits none of {', '.join(names)}")
    return [
        Problem(operation=name.split()[0], gate=name.split()[1], shape=shape)
        for name, shape in product(chosen, shapes)
    ]


def _candidates(problem: Problem) -> list[tuple[Launch, Config, list[Config]]]:
    from .kernels.triton.alternatives import alternatives, current, launches

    found = launches(problem.operation, problem.gate, problem.shape[3])
    return [(x, current(x), alternatives(x, current(x))) for x in found]


def _compile(problems: list[Problem], arch: int, jobs: int) -> dict[tuple[Launch, Config], str]:
    """Fills Triton's cache; what cannot be compiled, with the reason."""
    import time

    from .kernels.triton.tune_compile import compile_all

    start = time.monotonic()
    chosen = [
        (launch, config)
        for problem in problems
        for launch, today, others in _candidates(problem)
        for config in (today, *others)
    ]
    done = compile_all(arch, jobs, list(dict.fromkeys(chosen)))
    failures = {(launch, config): why for launch, config, why in done if why is not None}
    n_compiled, spent = len(set(chosen)) - len(failures), time.monotonic() - start
    print(f"{n_compiled} configurations compiled by {jobs} processes in {spent:.0f} s", flush=True)
    return failures


def _search(problem: Problem, failures: dict[tuple[Launch, Config], str]) -> Iterator[Tried]:
    """Rows of one problem; what was not compiled is not tried."""
    from .kernels.triton.alternatives import FORWARD
    from .kernels.tune import search
    from .kernels.tune_trials import Trials

    with Trials(problem) as on_gpu:

        def trial(configs: dict[Launch, Config]) -> Times | str:
            failed = [failures[pair] for pair in configs.items() if pair in failures]
            return f"not compiled: {failed[0]}" if failed else on_gpu(configs)

        yield from search(
            _candidates(problem), trial, by_forward=lambda launch: launch.kernel in FORWARD
        )


def line(row: Tried) -> str:
    """A row of the table under the header; a winner's names what it replaces."""
    from .kernels.tune import Times

    start = f"{row.launch!s:46}{row.config!s:42}"
    if not isinstance(row.outcome, Times):
        return start + f"  {row.outcome}"
    start += f"{row.outcome.forward_us:9.0f}{row.outcome.both_us:9.0f}"
    if row.before is None:
        return start
    was = f"today's {row.before.forward_us:.0f} and {row.before.both_us:.0f}"
    return f"{start}  {'wins' if row.is_winner else 'not again'}: {was}"


def kernels_line(times: Times) -> str:
    """Each kernel's µs of a forward and a backward pass."""
    return ", ".join(
        f"{kernel.removesuffix('_kernel')} {us:.0f}" for kernel, us in times.kernels_us.items()
    )


def _entry(row: Tried, shape: Shape) -> Entry:
    import torch
    import triton

    from .kernels.triton.alternatives import FORWARD
    from .kernels.triton.config_table import Entry, Measured
    from .kernels.tune import Times

    assert isinstance(row.outcome, Times)
    assert row.before is not None
    forward = row.launch.kernel in FORWARD
    us, before_us = (x.forward_us if forward else x.both_us for x in (row.outcome, row.before))
    measured = Measured(
        device=torch.cuda.get_device_name(),
        torch=torch.__version__,
        triton=triton.__version__,
        date=datetime.now(UTC).date().isoformat(),
        shape=shape,
        us=round(us, 1),
        before_us=round(before_us, 1),
    )
    return Entry(config=row.config, measured=measured)
