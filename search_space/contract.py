"""The candidate contract: what a token mixer is, as text for people and prompts and as a Protocol.

Importing this module loads no torch, so the driver can check sources without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = "dict[str, Tensor]"

MIXER_CLASS = "Mixer"
CONSTRUCTOR_ARGUMENTS = ("d_model", "n_heads", "layer_idx", "n_layers")
FORWARD_ARGUMENTS = ("x", "state")
MAX_SOURCE_BYTES = 65_536
MAX_PATTERN_LENGTH = 64
DEFAULT_PATTERN = "L"

# `torch` stands for its tensor and nn parts; source_check.py lists what it leaves out.
ALLOWED_IMPORTS = (
    "__future__",
    "collections.abc",
    "dataclasses",
    "einops",
    "linearch.kernels",
    "linearch.search_space.layers",
    "math",
    "torch",
    "typing",
)

CONTRACT = f"""\
A candidate is one Python source file of at most {MAX_SOURCE_BYTES} bytes with one public class:

    class Mixer(nn.Module):
        def __init__(self, d_model: int, n_heads: int, layer_idx: int, n_layers: int): ...
        def forward(self, x, state=None):  # x: [B, T, D]; state: dict[str, Tensor] | None
            return y, state                # y: [B, T, D]; the state after the last token

- One method trains (the whole sequence, state=None) and streams (any T >= 1, T=1 to decode):
  feeding a sequence in pieces, handing each call the state of the one before, gives what feeding it
  whole gives. No output may depend on a later token or on another sequence of the batch.
- The state is a flat dict of tensors. The first call gets None; from then on keys, shapes and
  dtypes stay the same, and the bytes of its storages do not depend on how many tokens were seen.
  Return fresh tensors; never change the given ones in place.
- A position, where needed, is an int64 tensor in the state, never a Python number; no .item().
- Shapes come from x; T is any integer from 1; d_model % n_heads == 0; all sequences of a batch have
  one length. Time and memory grow less than quadratically with T.
- x may be bfloat16 (under autocast); y has x's dtype; the state may be float32.
- Buffers, frozen parameters and cached tensors hold at most 1 % of the numbers that are trained, or
  1,024; none appears, changes or grows once the mixer is made.
- The mixer initialises its own parameters; every parameter must receive a gradient. Weight decay
  applies to parameters with two or more axes.
- Embedding, norm before the mixer, residual, MLP, head, loss, optimiser and data are not the
  candidate's. A class attribute pattern = "LLLA" (a literal of L and A, at least one L) repeats
  over the layers: L is this mixer, A is sliding-window attention.
- Imports come from: {", ".join(ALLOWED_IMPORTS)}. The top level holds imports, constants, functions
  and classes only; every class but Mixer has a name that starts with an underscore.
"""


class TokenMixer(Protocol):
    """What the backbone calls: `nn.Module.__call__` of a `Mixer`."""

    def __call__(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x [B, T, D] and the state before its first token to y [B, T, D] and the state after."""
        ...


def state_bytes(states: Iterable[Mapping[str, Tensor]]) -> int:
    """Bytes that the layers' states keep alive: each distinct storage once, whole.

    Storages are counted, not views: a three-token view of a long sequence holds all of it.
    """
    storages = [tensor.untyped_storage() for state in states for tensor in state.values()]
    return sum({s.data_ptr(): s.nbytes() for s in storages if s.nbytes()}.values())
