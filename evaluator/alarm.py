"""Too good to be true: scores that put an architecture into quarantine instead of first place.

An alarm proves nothing. It keeps a number out of the ranking until an audit has looked at it, for
in every published case of a search fooled by its candidates the score itself was the first sign.
"""

from __future__ import annotations

import lzma

# Of a larger text a part is compressed: a few seconds' work, and more would lower the bound little.
MOST_BYTES = 8 << 20
# Than the slowest baseline. A machine's other work makes equal trainings differ by less than two.
_MUCH_SLOWER = 4.0
_MUCH_MORE = 1.4
# Less time than this buys no score; starting, stalls and other work take as much of any training.
_LEAST_EXTRA_S = 1.0
# A child forked from the zygote builds its model and optimiser in some 0.1 s.
_PREPARATION_S = 1.0
_PREPARATION_SHARE = 0.05


def lzma_bits_per_byte(text: bytes) -> float:
    """What xz makes of a byte of `text`, or of its first 8 MiB, with no model of it beforehand."""
    part = text[:MOST_BYTES]
    return 8 * len(lzma.compress(part, preset=9)) / len(part)


def text_alarm(val_bpb: float, lzma_bpb: float) -> str | None:
    """Why a score on validation text is suspicious by itself, or None.

    xz sees all of the text at once, with copies far apart, and a small model one short window.
    """
    if val_bpb >= lzma_bpb:
        return None
    return (
        f"{val_bpb:.3f} bits per byte are fewer than the {lzma_bpb:.3f} that xz needs for the same "
        "validation text"
    )


def rival_alarm(
    val_bpb: float, rung: int, baseline: str, baseline_bpb: float, share: float
) -> str | None:
    """Why a score is suspicious beside the best baseline's of the same rung, or None."""
    lead = 1 - val_bpb / baseline_bpb
    if lead <= share:
        return None
    return (
        f"{val_bpb:.3f} bits per byte at rung {rung} are {lead:.0%} below the best baseline's "
        f"{baseline_bpb:.3f} ({baseline}), and {share:.0%} are believed unseen"
    )


def preparation_alarm(prepare_cpu_s: float | None, train_cpu_s: float | None) -> str | None:
    """Why a child's work before it got its data may have been training, or None."""
    if prepare_cpu_s is None or train_cpu_s is None:
        return None
    if prepare_cpu_s <= max(_PREPARATION_S, _PREPARATION_SHARE * train_cpu_s):
        return None
    return (
        f"before it was served its data it computed for {prepare_cpu_s:.1f} s, and training itself "
        f"took {train_cpu_s:.1f} s, as if it had trained on something else"
    )


def effort_alarm(
    val_bpb: float,
    cost_ratio: float,
    train_cpu_s: float,
    best_baseline_bpb: float,
    largest_baseline_ratio: float,
) -> str | None:
    """Why more may have been trained than the steps that count, or None.

    The ratios are of a token's processor time in training to that in scoring, where a mixer that
    trains itself once more in each counted step has no step to do it in. `train_cpu_s` is the
    whole training's.
    """
    more = cost_ratio / largest_baseline_ratio
    if val_bpb >= best_baseline_bpb or not _is_far_beyond(_MUCH_MORE, more, train_cpu_s):
        return None
    return (
        f"a token costs it {cost_ratio:.1f} times as much in training as in scoring, "
        f"{more:.1f} times the most of any baseline, and it scores better than the best, as if "
        "more was trained than the steps that count"
    )


def time_alarm(
    val_bpb: float,
    tokens_per_s: float,
    train_wall_s: float,
    best_baseline_bpb: float,
    slowest_baseline_tokens_per_s: float,
) -> str | None:
    """Why a score may have been bought with training that was not counted, or None.

    A mixer that trains itself some more inside a counted step is paid for in time alone, which
    everyone is billed. Only what beats all baselines is suspected: slow code as such is not.
    """
    slower = slowest_baseline_tokens_per_s / tokens_per_s
    if val_bpb >= best_baseline_bpb or not _is_far_beyond(_MUCH_SLOWER, slower, train_wall_s):
        return None
    return (
        f"it trains {slower:.1f} times slower than the slowest baseline ({tokens_per_s:,.0f} "
        "tokens a second) and scores better than the best, as if more was trained than the steps "
        "that count"
    )


def _is_far_beyond(limit: float, times: float, took_s: float) -> bool:
    """Whether `took_s`, `times` as long as it is compared with, leaves seconds beyond `limit`."""
    return times > limit and took_s * (1 - limit / times) > _LEAST_EXTRA_S
