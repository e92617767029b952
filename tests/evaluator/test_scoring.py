"""The score is computed from hidden states alone, and hidden states must not know the future."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.protocol import Message
from linearch.evaluator.scoring import HeldOut, NewChild, Score, score
from linearch.evaluator.stopped import TrialStopped

N, T, D, V = 20, 12, 4, 10
_GENERATOR = torch.Generator().manual_seed(0)
_TOKENS = torch.randint(V, (N, T + 1), generator=_GENERATOR)
_HEAD = torch.randn(V, D, generator=_GENERATOR)
_EMBED = torch.randn(V, D, generator=_GENERATOR)
_HELD_OUT = HeldOut(inputs=_TOKENS[:, :-1], labels=_TOKENS[:, 1:])

Answer = Callable[[Tensor], Tensor]


def _causal(tokens: Tensor) -> Tensor:
    return _EMBED[tokens].cumsum(1)


class _FakeChild:
    """Answers like a child that computes `answer`; counts what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[Tensor] = []

    def call(
        self, op: str, values: Mapping[str, Any], tensors: Mapping[str, Tensor], *, reply_bytes: int
    ) -> Message:
        assert (op, list(tensors)) == ("hidden", ["tokens"])
        self.asked.append(tensors["tokens"])
        hidden = self._answer(tensors["tokens"])
        assert hidden.numel() * 4 < reply_bytes or hidden.numel() == 0
        return Message(values={}, tensors={"hidden": hidden})


def _children(answer: Answer, made: list[_FakeChild]) -> NewChild:
    @contextmanager
    def new_child() -> Iterator[Any]:
        made.append(_FakeChild(answer))
        yield made[-1]

    return new_child


def _score(
    answer: Answer,
    held_out: HeldOut = _HELD_OUT,
    precision: str = "fp32",
    head: Tensor = _HEAD,
) -> Score:
    return score(_children(answer, []), held_out, {"embedding.weight": head}, precision)


def test_the_score_is_the_cross_entropy_under_the_stored_head() -> None:
    logits = _causal(_HELD_OUT.inputs) @ _HEAD.T
    expected = F.cross_entropy(logits.flatten(0, 1), _HELD_OUT.labels.flatten(), reduction="sum")
    scored = _score(_causal)
    assert scored.nats == pytest.approx(expected.item(), rel=1e-6)
    assert scored.n_labels == N * T
    assert scored.n_correct == int((logits.argmax(-1) == _HELD_OUT.labels).sum())
    assert scored.prefix_shift_nats < 1e-4


def test_labels_left_out_do_not_count() -> None:
    labels = _HELD_OUT.labels.clone()
    labels[:, 1:] = -100
    scored = _score(_causal, HeldOut(inputs=_HELD_OUT.inputs, labels=labels))
    first = _causal(_HELD_OUT.inputs)[:, 0] @ _HEAD.T
    assert scored.n_labels == N
    assert scored.nats == pytest.approx(
        F.cross_entropy(first, labels[:, 0], reduction="sum").item(), rel=1e-6
    )


def test_prefixes_are_asked_in_another_child_which_sees_no_whole_row() -> None:
    made: list[_FakeChild] = []
    score(_children(_causal, made), _HELD_OUT, {"embedding.weight": _HEAD}, "fp32")
    whole, prefixes = made
    assert sum(len(tokens) for tokens in whole.asked) == N
    assert all(len(tokens) <= 8 and tokens.shape[1] < T for tokens in prefixes.asked)
    assert len({tokens.shape[1] for tokens in prefixes.asked}) > 5


def test_prefixes_end_where_something_is_scored() -> None:
    labels = torch.full_like(_HELD_OUT.labels, -100)
    labels[:, 6] = _HELD_OUT.labels[:, 6]
    made: list[_FakeChild] = []
    held_out = HeldOut(inputs=_HELD_OUT.inputs, labels=labels)
    score(_children(_causal, made), held_out, {"embedding.weight": _HEAD}, "fp32")
    assert {tokens.shape[1] for tokens in made[1].asked} == {7}


def _next_token(tokens: Tensor) -> Tensor:
    return _EMBED[tokens.roll(-1, 1)]


def _block_mean(tokens: Tensor) -> Tensor:
    blocks = _EMBED[tokens].split(4, dim=1)
    return torch.cat([b.mean(1, keepdim=True).expand_as(b) for b in blocks], dim=1)


def _hides_beside_a_giant(tokens: Tensor) -> Tensor:
    return torch.cat([_next_token(tokens)[..., :-1], torch.full((*tokens.shape, 1), 1e30)], dim=-1)


def _knows_its_length(tokens: Tensor) -> Tensor:
    return _causal(tokens) * (1 + 0.1 * (tokens.shape[1] == T))


@pytest.mark.parametrize(
    "leak", [_next_token, _block_mean, _hides_beside_a_giant, _knows_its_length]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_hidden_states_that_know_the_future_are_noncausal(leak: Answer, precision: str) -> None:
    head = _HEAD.clone()
    head[:, -1] = 0  # the last channel counts for nothing
    with pytest.raises(TrialStopped) as stopped:
        _score(leak, precision=precision, head=head)
    assert stopped.value.status == "noncausal"
    assert "moves by" in stopped.value.reason


def test_rounding_is_not_taken_for_a_leak() -> None:
    def rounded(tokens: Tensor) -> Tensor:
        noise = torch.randn(
            tokens.shape[1], 1, generator=torch.Generator().manual_seed(len(tokens))
        )
        return _causal(tokens) * (1 + 1e-5 * noise)

    assert 0 < _score(rounded).prefix_shift_nats < 2e-3


def _with(value: float) -> Answer:
    def answer(tokens: Tensor) -> Tensor:
        hidden = _causal(tokens)
        hidden[-1, -1, -1] = value
        return hidden

    return answer


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (_with(float("nan")), "diverged"),
        (_with(float("inf")), "diverged"),
        (_with(3e38), "diverged"),
        (lambda tokens: _causal(tokens)[:, :-1], "protocol"),
        (lambda tokens: _causal(tokens)[..., :-1], "protocol"),
        (lambda tokens: _causal(tokens).double(), "protocol"),
        (lambda tokens: torch.empty(0), "protocol"),
    ],
)
def test_unusable_hidden_states_end_the_trial(answer: Answer, status: str) -> None:
    with pytest.raises(TrialStopped) as stopped:
        _score(answer)
    assert stopped.value.status == status


def test_a_child_that_dies_while_scoring_ends_the_trial_in_its_own_class() -> None:
    def dying(tokens: Tensor) -> Tensor:
        raise ChildFailed("oom", "too much")

    with pytest.raises(TrialStopped, match="scoring: too much") as stopped:
        _score(dying)
    assert stopped.value.status == "oom"
