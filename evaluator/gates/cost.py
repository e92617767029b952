"""Work and memory grow less than quadratically with T, forward and backward.

The child counts every operator; counts carry no noise, so one place that grows too fast is seen
however little it does yet. Its CPU time, seen from outside, has to agree with the counts.
"""

from __future__ import annotations

import torch

from ...config import GateConfig
from ..results import GateResult
from .growth import Growth, count_growth, hidden_growth, totals
from .probe import Cost, MixerProbe, ProbeFacts

_SHORTEST_SPAN = 1024
_LONGEST_SPAN = 4096
_SLOW_S_A_TOKEN = 1e-3  # the library takes a twentieth of it
# A level of a tree over a handful of chunks looks steeper than it is: N log N over 4, 8 and 16
# chunks grows like N^1.32. The square root of T as chunk size, at 1.5, stays above.
_PLACE_ALLOWANCE = 0.15
# Of the process's time beyond the fastest count's: caches and neighbours explain 0.1 to 0.2, hidden
# attention shows 0.7 and more.
_TIME_ALLOWANCE = 0.5


def cost(probe: MixerProbe, config: GateConfig, generator: torch.Generator) -> GateResult:
    """Exponents at three lengths, each twice the one before; a suspicion must hold at the next.

    What is sound by count is timed at up to four times the longest, unless it is a slow loop.
    """
    if probe.facts.is_reference:
        reason = "A reference mixer may cost more than linearly."
        return GateResult(gate="cost", passed=None, reason=reason)
    limit = config.max_cost_exponent
    costs = _measured(probe)
    worst = _too_fast(costs, limit)
    if worst is not None:
        worst = _too_fast(_longer(probe, costs), limit)
    hidden = _hidden(probe, costs) if worst is None else None
    evidence = {"limit": limit, **totals(costs)}
    found = worst or hidden
    if found is None:
        return GateResult(gate="cost", passed=True, evidence=evidence)
    reason = _reason(found) if worst else _hidden_reason(found)
    return GateResult(
        gate="cost", passed=False, reason=reason, evidence={**evidence, **found.evidence()}
    )


def cost_lengths(facts: ProbeFacts) -> tuple[int, int, int]:
    """The longest is beyond the training length and any chunk size that the source names."""
    wanted = 2 * max(facts.seq_len, *facts.chunk_sizes, _SHORTEST_SPAN // 2)
    longest = min(1 << (wanted - 1).bit_length(), _LONGEST_SPAN)
    return longest // 4, longest // 2, longest


def _measured(probe: MixerProbe) -> dict[int, Cost]:
    """The three lengths; a loop over tokens is slow to count, so it ends where others begin."""
    shortest, *longer = cost_lengths(probe.facts)
    costs = {shortest: probe.cost(shortest)}
    if _is_slow(shortest, costs[shortest]):
        longer = [shortest // 4, shortest // 2]
    return costs | {length: probe.cost(length) for length in longer}


def _longer(probe: MixerProbe, costs: dict[int, Cost]) -> dict[int, Cost]:
    longest = 2 * max(costs)
    costs[longest] = probe.cost(longest)
    return costs


def _hidden(probe: MixerProbe, costs: dict[int, Cost]) -> Growth | None:
    """Time that counts do not explain, seen twice; adds the far length to `costs`."""
    near = max(costs)
    if _is_slow(near, costs[near]):
        return None
    far = (4 if near <= _SHORTEST_SPAN else 2) * near
    costs[far] = probe.cost(far)
    if hidden_growth(costs, near, far, _TIME_ALLOWANCE) is None:
        return None
    again = {length: probe.cost(length) for length in (near, far)}
    return hidden_growth(again, near, far, _TIME_ALLOWANCE)


def _is_slow(length: int, cost: Cost) -> bool:
    took_s = cost.wall_s if cost.cpu_s is None else cost.cpu_s
    return took_s > _SLOW_S_A_TOKEN * length


def _too_fast(costs: dict[int, Cost], limit: float) -> Growth | None:
    """What weighs most of all that grows beyond its limit over the last lengths; places first."""
    found = [
        growth
        for growth in count_growth(costs)
        if growth.exponent > limit + (_PLACE_ALLOWANCE if growth.where else 0.0)
    ]
    return max(found, key=lambda growth: (bool(growth.where), growth.counts[-1]), default=None)


def _reason(found: Growth) -> str:
    place = f" of {found.operator} at {found.where}" if found.where else ""
    counts = ", ".join(f"{count:,}" for count in found.counts)
    lengths = ", ".join(map(str, found.lengths))
    return (
        f"In the {found.phase} pass the {found.what}{place} grow like T^{found.exponent:.2f} "
        f"({counts} at {lengths} tokens): cost must grow less than quadratically."
    )


def _hidden_reason(found: Growth) -> str:
    times = ", ".join(f"{1000 * seconds:.0f}" for seconds in found.counts)
    lengths = ", ".join(map(str, found.lengths))
    return (
        f"The process's CPU time grows like T^{found.exponent:.2f} ({times} ms at {lengths} "
        "tokens), although the operators counted inside do not: work was hidden from counting."
    )
