"""How fast whole models train: tokens a second, memory and the time to the first step.

The trainer of a trial runs as it does there, but on random tokens and for a given time.
"""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..config import TrainingConfig
from ..kernels.forms import Form, force_form
from ..search_space.backbone import Backbone, BackboneConfig
from ..search_space.library import baseline_source
from ..search_space.loading import load_mixer_class
from ..search_space.parameters import count_parameters
from .recipe import Recipe, make_recipe
from .training import Trainer

_WARM_STEPS = 3
_N_BATCHES = 4
_STEPS = 1 << 30  # more than there is time for
_MATMUL_SIZE = {"cuda": 8192, "cpu": 512}
_MATMUL_REPEATS = 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A model around its mixers, and the batch that it trains on."""

    model: BackboneConfig
    batch_size: int
    seq_len: int

    @property
    def step_tokens(self) -> int:
        return self.batch_size * self.seq_len


def _size(
    vocabulary: int, width: int, layers: int, heads: int, mlp: int, batch: tuple[int, int]
) -> Size:
    model = BackboneConfig(
        vocab_size=vocabulary, d_model=width, n_layers=layers, n_heads=heads, mlp_width=mlp
    )
    return Size(model=model, batch_size=batch[0], seq_len=batch[1])


# A search's trials on two cores and on a GPU; ASI-Arch's two stages, in the widths of FLA's models
# (whose head is not tied).
SIZES = {
    "search": _size(256, 64, 2, 2, 176, (32, 256)),
    "1m": _size(256, 128, 4, 4, 416, (32, 512)),
    "20m": _size(32_000, 256, 8, 4, 768, (64, 2048)),
    "340m": _size(32_000, 1024, 24, 8, 2816, (16, 2048)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """One model's training. `matmul_share` is the share of the matrix rate measured beside it.

    It counts six operations a token for each parameter of a matrix, and nothing for what the mixer
    does between tokens. `first_step_s` holds compiling, and recording where `is_graph`; where that
    was asked for and is not, `not_recorded` says why. Memory is None on a CPU.
    """

    size: str
    model: str
    source: str
    n_params: int
    tokens_per_s: float
    step_ms: float
    matmul_share: float | None
    peak_memory_bytes: int | None
    first_step_s: float
    is_graph: bool
    not_recorded: str | None = None


class TimeIsUp(Exception):
    """Ends a training from within."""


class Clock:
    """Random batches, from which a training's time is taken: a batch is asked for at each step.

    `start` is called when the warm steps are over, for several trainings to begin at once.
    """

    def __init__(
        self,
        size: Size,
        device: torch.device,
        seconds: float,
        start: Callable[[], object] = lambda: None,
    ) -> None:
        shape = (_N_BATCHES, size.batch_size, size.seq_len + 1)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(size.model.vocab_size, shape, generator=generator)
        self._windows = drawn.to(device)
        self._size, self._device = size, device
        self._seconds, self._start = seconds, start
        self._begun = time.perf_counter()
        self.first_step_s = self.elapsed_s = 0.0
        self.n_steps = 0

    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        if i == 1:
            wait_for(self._device)
            self.first_step_s = time.perf_counter() - self._begun
        if i == _WARM_STEPS:
            wait_for(self._device)
            self._start()
            self._begun = time.perf_counter()
        elif i > _WARM_STEPS and time.perf_counter() - self._begun > self._seconds:
            wait_for(self._device)
            self.elapsed_s, self.n_steps = time.perf_counter() - self._begun, i - _WARM_STEPS
            raise TimeIsUp
        window = self._windows[i % _N_BATCHES]
        return window[:, :-1], window[:, 1:]

    @property
    def tokens_per_s(self) -> float:
        return self.n_steps * self._size.step_tokens / self.elapsed_s

    @property
    def step_ms(self) -> float:
        return 1e3 * self.elapsed_s / self.n_steps


def measure(
    baseline: str,
    size_name: str,
    device: torch.device,
    *,
    seconds: float,
    matmul_rate: float | None = None,
    records: bool = True,
    form: Form | None = None,
    start: Callable[[], object] = lambda: None,
) -> Speed:
    """Trains a baseline for `seconds`; not `records`: every step is run by Python."""
    size = SIZES[size_name]
    begin_memory(device)
    torch.manual_seed(0)
    mixer_class = load_mixer_class(baseline_source(baseline), "bench")
    model = Backbone(size.model, mixer_class).to(device)
    clock = Clock(size, device, seconds, start)
    trainer = Trainer(model, _recipe(size), lambda *_, **__: None)
    with _as_in_a_trial(device), force_form(form) if form else nullcontext():
        if records:
            trainer.warm_up()
        run_until_time_is_up(lambda: trainer.train(clock))
    return Speed(
        size=size_name,
        model=baseline,
        source="linearch",
        n_params=count_parameters(model),
        tokens_per_s=clock.tokens_per_s,
        step_ms=clock.step_ms,
        matmul_share=_share(clock.tokens_per_s, matmul_params(model), matmul_rate),
        peak_memory_bytes=peak_memory(device),
        first_step_s=clock.first_step_s,
        is_graph=records and device.type == "cuda" and trainer.not_recorded is None,
        not_recorded=trainer.not_recorded,
    )


@contextmanager
def _as_in_a_trial(device: torch.device) -> Iterator[None]:
    """On a GPU the operators' deterministic forms, without torch's word on those that have none."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(device.type == "cuda" or before, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        torch.use_deterministic_algorithms(before)


def run_until_time_is_up(train: Callable[[], Any]) -> None:
    try:
        outcome = train()
    except TimeIsUp:
        return
    raise RuntimeError(f"the training ended before its time: {outcome}")


def matmul_params(model: nn.Module) -> int:
    """Parameters that a token is multiplied with; of a tied embedding it is so once, as the head.

    A model without a tied head holds an embedding that takes no part: the caller subtracts it.
    """
    return sum(parameter.numel() for parameter in model.parameters() if parameter.ndim >= 2)


def matmul_operations_per_s(device: torch.device) -> float:
    """Of one large product in the precision that training uses there: bfloat16, on a CPU float32.

    The median of several, on random numbers.
    """
    n = _MATMUL_SIZE[device.type]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(_MATMUL_REPEATS):
        wait_for(device)
        begun = time.perf_counter()
        a @ b
        wait_for(device)
        times.append(time.perf_counter() - begun)
    return 2.0 * n**3 / sorted(times)[_MATMUL_REPEATS // 2]


def begin_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _share(tokens_per_s: float, n_params: int, rate: float | None) -> float | None:
    return None if rate is None else 6.0 * n_params * tokens_per_s / rate


def _recipe(size: Size) -> Recipe:
    return make_recipe(
        TrainingConfig(precision="bf16"),
        tokens=_STEPS * size.step_tokens,
        learning_rate=1e-3,
        seed=0,
        batch_size=size.batch_size,
        seq_len=size.seq_len,
    )
