"""What `linearch bench train` measures and prints: how fast whole models train."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from .errors import ConfigError, PreflightError
from .search_space.library import BASELINES

if TYPE_CHECKING:
    import torch

    from .evaluator.train_bench import Speed
    from .evaluator.train_bench_packed import Packed
    from .kernels.forms import Form

_DASH = "–"
_LEGEND = (
    "matmul: six operations a token for each matrix parameter, as a share of what one large matrix "
    "product reaches here.\nfirst step: with compiling, and recording the graph."
)
_HEADER = (
    f"{'size':<7}{'model':<19}{'by':<9}{'parameters':>12}{'tokens/s':>12}{'step ms':>10}"
    f"{'matmul':>8}{'peak MiB':>10}{'first step s':>14}  step"
)
_PACKED_HEADER = f"{'size':<7}{'model':<19}{'at once':>8}{'all tokens/s':>14}  step, GPU"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainBench:
    """What was asked for; names of sizes and baselines, by default all that the device can take."""

    sizes: tuple[str, ...]
    baselines: tuple[str, ...]
    at_once: tuple[int, ...]
    device: str | None
    seconds: float
    records: bool  # the step as a graph, where it can be one
    peer: bool  # flash-linear-attention's models too
    mps: bool
    form: Form | None = None


def run_train(asked: TrainBench, *, as_json: bool) -> None:
    """Prints rows as they are measured."""
    import torch

    device = _device(asked)
    sizes = _sizes(asked, device)
    baselines = _known(asked.baselines or tuple(BASELINES), BASELINES, "--baseline")
    if device.type == "cpu":
        torch.set_num_threads(1)
    if not as_json:
        name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread"
        print(f"{name}, torch {torch.__version__}")
    if asked.at_once:
        rows: Iterator[Speed | Packed] = _packed(asked, sizes, baselines, device)
        header = _PACKED_HEADER
    else:
        rows = _alone(asked, sizes, baselines, device)
        header = f"{_LEGEND}\n{_HEADER}"
    if not as_json:
        print(header, flush=True)
    for row in rows:
        print(json.dumps(asdict(row)) if as_json else _line(row), flush=True)


def _alone(
    asked: TrainBench, sizes: Sequence[str], baselines: Sequence[str], device: torch.device
) -> Iterator[Speed]:
    from .evaluator.train_bench import matmul_operations_per_s, measure
    from .evaluator.train_bench_fla import has_model, measure_fla

    rate = matmul_operations_per_s(device)
    for size in sizes:
        for name in baselines:
            yield measure(
                name,
                size,
                device,
                seconds=asked.seconds,
                matmul_rate=rate,
                records=asked.records,
                form=asked.form,
            )
            if asked.peer and has_model(name):
                yield measure_fla(name, size, device, seconds=asked.seconds, matmul_rate=rate)


def _packed(
    asked: TrainBench, sizes: Sequence[str], baselines: Sequence[str], device: torch.device
) -> Iterator[Packed]:
    from .evaluator.train_bench_packed import measure_packed

    with _service(asked) as mps:
        for size in sizes:
            for name in baselines:
                for n_processes in asked.at_once:
                    yield measure_packed(
                        name,
                        size,
                        device,
                        n_processes,
                        seconds=asked.seconds,
                        records=asked.records,
                        form=asked.form,
                        mps=mps,
                    )


@contextmanager
def _service(asked: TrainBench) -> Iterator[dict[str, str] | None]:
    from .evaluator.mps import MpsUnavailable, shared_gpu

    if not asked.mps:
        yield None
        return
    try:
        with shared_gpu() as variables:
            yield variables
    except MpsUnavailable as error:
        raise PreflightError(f"{error}; leave --mps out.") from error


def _device(asked: TrainBench) -> torch.device:
    import torch

    from .evaluator.train_bench_fla import is_installed

    found = torch.device(asked.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if found.type == "cuda" and not torch.cuda.is_available():
        raise PreflightError("There is no NVIDIA GPU here; leave --device out, or name cpu.")
    if asked.mps and (found.type != "cuda" or not asked.at_once):
        raise ConfigError("--mps is for several trainings (--at-once) on an NVIDIA GPU.")
    if asked.peer and asked.at_once:
        raise ConfigError("--peer and --at-once are two measurements; choose one.")
    if asked.peer and (found.type != "cuda" or not is_installed()):
        raise PreflightError(
            "--peer fla needs an NVIDIA GPU and the packages flash-linear-attention and "
            "transformers; install them, or leave --peer out."
        )
    return found


def _sizes(asked: TrainBench, device: torch.device) -> tuple[str, ...]:
    from .evaluator.train_bench import SIZES

    everything = ("search",) if device.type == "cpu" or asked.at_once else tuple(SIZES)
    return _known(asked.sizes or everything, SIZES, "--size")


def _known(names: tuple[str, ...], known: Iterable[str], option: str) -> tuple[str, ...]:
    for name in names:
        if name not in (choices := tuple(known)):
            raise ConfigError(f"{option} {name!r} is unknown; choose from {', '.join(choices)}.")
    return names


def _line(row: Speed | Packed) -> str:
    from .evaluator.train_bench_packed import Packed

    if isinstance(row, Packed):
        how = f"{_step(row.is_graph)}, {'shared by MPS' if row.shares_gpu else 'in turns'}"
        return f"{row.size:<7}{row.model:<19}{row.n_processes:>8}{row.tokens_per_s:>14,.0f}  {how}"
    share = _DASH if row.matmul_share is None else f"{row.matmul_share:.1%}"
    peak = _DASH if row.peak_memory_bytes is None else f"{row.peak_memory_bytes / 2**20:,.0f}"
    why = f" ({row.not_recorded})" if row.not_recorded else ""
    return (
        f"{row.size:<7}{row.model:<19}{row.source:<9}{row.n_params:>12,}{row.tokens_per_s:>12,.0f}"
        f"{row.step_ms:>10.2f}{share:>8}{peak:>10}{row.first_step_s:>14.1f}"
        f"  {_step(row.is_graph)}{why}"
    )


def _step(is_graph: bool) -> str:
    return "graph" if is_graph else "eager"
