"""Which of several sequences share a batch whose rows are as long as its longest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

_CHUNK = 64  # tokens; lengths in the same chunk of them are not told apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    sequences: tuple[int, ...]  # rising
    longest: int  # of them, in tokens; 1 or more

    @property
    def tokens(self) -> int:
        """Padding included."""
        return len(self.sequences) * self.longest


@lru_cache(maxsize=64)  # the layers of a model ask the same
def batches_of_similar_length(lengths: tuple[int, ...], call_tokens: int) -> tuple[Batch, ...]:
    """The split that costs least, where a batch costs its tokens and `call_tokens` for its call.

    So never more than all sequences in one, and never more than a batch for each class of lengths,
    whose longest is at most a chunk or a quarter longer than its shortest.
    """
    classes: dict[int, list[int]] = {}
    for sequence, length in enumerate(lengths):
        classes.setdefault(_class(length), []).append(sequence)
    rising = [classes[key] for key in sorted(classes)]
    longest = [max(1, *(lengths[sequence] for sequence in members)) for members in rising]
    rows = list(accumulate((len(members) for members in rising), initial=0))
    # The least cost of the classes up to each, and where the last batch of that split begins.
    least, cuts = [0], [0]
    for end in range(1, len(rising) + 1):
        row = longest[end - 1]
        cost, cut = min(
            (least[start] + call_tokens + (rows[end] - rows[start]) * row, start)
            for start in range(end)
        )
        least.append(cost)
        cuts.append(cut)
    batches, end = [], len(rising)
    while end:
        members = sorted(sequence for part in rising[cuts[end] : end] for sequence in part)
        batches.append(Batch(sequences=tuple(members), longest=longest[end - 1]))
        end = cuts[end]
    return tuple(batches)


def _class(length: int) -> int:
    """Chunks, rounded up to three binary digits: 1 to 8, 10, 12, 14, 16, 20 and so on."""
    chunks = max(1, -(-length // _CHUNK))
    dropped = max(0, chunks.bit_length() - 3)
    return -(-chunks >> dropped) << dropped
