"""The state is all that goes on: a fresh process that is handed it alone must say the same.

What a mixer keeps in its own process (a dictionary of pasts, found again by a key in the state) is
not there, so it counts for nothing, and `state_bytes` is what was really sent.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..config import RunConfig
from .gates.compare import OTHER_SHAPE, largest_difference
from .hidden_states import ModelStream
from .results import GateResult

GATE = "handover"
_N_ROWS = 2
_STEPS_ON = 8  # single tokens that both processes go on for


def state_after(stream: ModelStream, tokens: Tensor) -> dict[str, Tensor]:
    """The state after tokens [B, T], as it was received. Raises TrialStopped."""
    stream.start()
    stream.feed(tokens)
    return stream.state()


def size_of(state: Mapping[str, Tensor]) -> int:
    """Bytes."""
    return sum(tensor.nbytes for tensor in state.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Handed:
    """What one process leaves to the next: the state after `n_read` tokens of each row, what comes
    after them, and what the first one said to that.
    """

    n_read: int
    state: dict[str, Tensor]
    tokens: Tensor  # [B, T]
    said: Tensor  # [B, T, D]


def hand_over(stream: ModelStream, config: RunConfig) -> Handed:
    """Reads some rows, gives its state and goes on with them. Raises TrialStopped."""
    n_read = config.data.seq_len // 2
    tokens = random_tokens(_N_ROWS, n_read + _STEPS_ON, config.model.vocab_size)
    read, to_come = tokens[:, :n_read], tokens[:, n_read:]
    stream.start()
    stream.feed(read)
    state = stream.state()
    return Handed(n_read=n_read, state=state, tokens=to_come, said=_go_on(stream, to_come))


def take_over(stream: ModelStream, handed: Handed, config: RunConfig) -> GateResult:
    """The gate: the same model in another process, which has read nothing. Raises TrialStopped."""
    stream.go_on_from(handed.state)
    gap = largest_difference(handed.said, _go_on(stream, handed.tokens))
    limit = OTHER_SHAPE.fp32 * config.gates.tolerance
    evidence = {
        "limit": limit,
        "tokens_read": handed.n_read,
        "state_bytes": size_of(handed.state) // _N_ROWS,
        **gap.evidence(),
    }
    if gap.relative <= limit:
        return GateResult(gate=GATE, passed=True, evidence=evidence)
    reason = (
        f"Handed the state after {handed.n_read} tokens, another process says something else "
        f"{gap.position + 1} tokens on, by {gap.relative:.2g} of its RMS: the state does not hold "
        "all that the model remembers."
    )
    return GateResult(gate=GATE, passed=False, reason=reason, evidence=evidence)


def _go_on(stream: ModelStream, tokens: Tensor) -> Tensor:
    """Hidden states [B, T, D] of tokens [B, T], one by one."""
    said = [stream.feed(tokens[:, i : i + 1]) for i in range(tokens.shape[1])]
    return torch.stack(said, dim=1)


def random_tokens(n_rows: int, length: int, vocab_size: int) -> Tensor:
    """New each time, so that no candidate can have seen them."""
    generator = torch.Generator().manual_seed(random.SystemRandom().getrandbits(63))
    return torch.randint(vocab_size, (n_rows, length), generator=generator)
