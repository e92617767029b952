"""The noise canary: trained on independent uniform tokens, no honest model goes below log2(V) bits.

A whole model is trained on such noise and then predicts fresh noise, whose labels never leave this
process. With E[-log2 p] = log2(V) + KL(uniform || p), fewer bits prove that some answer knew the
next token, by whatever mechanism, in the real kernels, precision and train mode. Rows are
independent too, so a row that reads its neighbours is the batch gate's to find; and a candidate
that is honest on noise alone passes: scoring by prefixes is for those.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ..config import RunConfig
from .hidden_states import ask_hidden
from .recipe import Recipe
from .results import GateResult
from .sandbox.failures import ChildFailed
from .sandbox.handle import Child
from .scoring import sum_nats
from .sizing import INIT_SEED, failed
from .stopped import TrialStopped

GATE = "canary"
VOCAB_SIZE = 16  # more sensitive than 256: a small leak is a larger part of what there is to know
_FLOOR_BITS = math.log2(VOCAB_SIZE)
# Of an honest model with 4 + k bits a token, 4096 tokens give a mean that deviates by about
# sqrt(2 k / ln 2 / 4096): at every k a margin of 0.02 below 4 is ten deviations away or more.
_EVAL_TOKENS = 4096
# On a processor time goes with tokens, on a GPU with steps. In the time that it takes, this found
# the weakest leaks of what was tried: a mean over 48 tokens, a norm over the whole sequence.
_BATCH_SIZE = {"cpu": 6, "cuda": 8}
_LONGEST = {"cpu": 48, "cuda": 4096}
_WIDTH_OF_RATE = 64  # the model width that the rate below belongs to; wider ones want less
_RATE = 4e-3


def noise_canary(
    child: Child, model: Mapping[str, Any], config: RunConfig, device: str, precision: str
) -> GateResult:
    """Trains `model` (BackboneConfig's fields) in a child that has loaded the source; judges it.

    A training that diverges, or answers that are not finite, prove nothing either way: no verdict.
    """
    recipe = _recipe(config, device, precision)
    evidence = {
        "floor_bits": _FLOOR_BITS,
        "steps": recipe.total_steps,
        "tokens": recipe.total_steps * recipe.batch_size * recipe.seq_len,
    }
    try:
        head = _trained_head(child, {**model, "vocab_size": VOCAB_SIZE}, recipe)
        bits = {
            mode: _bits(child, head, recipe.seq_len, precision, train=mode == "train")
            for mode in ("train", "eval")
        }
    except ChildFailed as failure:
        return failed(GATE, failure)
    except TrialStopped as stopped:
        if stopped.status != "diverged":
            return GateResult(gate=GATE, passed=False, reason=f"The candidate {stopped}.")
        reason = f"No verdict from noise: {stopped.reason}."
        return GateResult(gate=GATE, passed=None, reason=reason, evidence=evidence)
    evidence.update({f"bits_{mode}": value for mode, value in bits.items()})
    return _verdict(bits, config.gates.canary_margin_bits, evidence)


def _verdict(bits: Mapping[str, float], margin_bits: float, evidence: dict[str, Any]) -> GateResult:
    mode, least = min(bits.items(), key=lambda item: item[1])
    if least >= _FLOOR_BITS - margin_bits:
        return GateResult(gate=GATE, passed=True, evidence=evidence)
    reason = (
        f"On uniform noise it reaches {least:.3f} bits a token in {mode} mode, where no causal "
        f"model gets below {_FLOOR_BITS:g}: it sees the future."
    )
    return GateResult(gate=GATE, passed=False, reason=reason, evidence=evidence)


def _trained_head(child: Child, model: dict[str, Any], recipe: Recipe) -> Tensor:
    """The head [V, D] that training left; it is fixed before the noise to predict is drawn."""
    child.call("build", {"model": model, "seed": INIT_SEED})
    reply = child.call("practise", {"recipe": asdict(recipe)})
    if reply.values.get("diverged") is not False:
        raise TrialStopped("diverged", "the loss of training on noise stopped being finite")
    head = reply.tensors.get("head")
    expected = (VOCAB_SIZE, model["d_model"])
    if head is None or head.shape != expected or head.dtype != torch.float32:
        raise ChildFailed("protocol", f"the reply holds no head of float32 {list(expected)}")
    if not head.isfinite().all():
        raise TrialStopped("diverged", "the head trained on noise is not finite")
    return head


def _bits(child: Child, head: Tensor, length: int, precision: str, *, train: bool) -> float:
    """Bits a token on fresh noise."""
    generator = torch.Generator().manual_seed(random.SystemRandom().getrandbits(63))
    n_rows = max(1, _EVAL_TOKENS // length)
    noise = torch.randint(VOCAB_SIZE, (n_rows, length + 1), generator=generator)
    hidden = ask_hidden(child, noise[:, :-1], head.shape[1], precision, train=train)
    nats = sum_nats(hidden, head, noise[:, 1:]).nats
    return nats / (n_rows * length * math.log(2))


def _recipe(config: RunConfig, device: str, precision: str) -> Recipe:
    """Short, at a falling rate: what an honest model loses to its last steps' noise is small."""
    steps = config.gates.canary_steps
    return Recipe(
        learning_rate=_RATE * math.sqrt(_WIDTH_OF_RATE / config.model.d_model),
        total_steps=steps,
        cooldown_steps=steps // 2,
        warmup_steps=min(8, steps // 4),
        weight_decay=0.0,
        betas=config.training.betas,
        clip_norm=config.training.clip_norm,
        precision=precision,
        seed=INIT_SEED,
        batch_size=_BATCH_SIZE[device],
        seq_len=min(config.data.seq_len, _LONGEST[device]),
    )
