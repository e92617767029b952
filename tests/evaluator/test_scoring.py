"""The score is computed from hidden states alone, and hidden states must not know the future."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from linearch.evaluator import scoring
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
    """Answers like a child that computes `answer`; its state is the tokens themselves.

    `loses`: whether the state that it sends out lacks the tokens.
    """

    def __init__(self, answer: Answer, *, loses: bool = False) -> None:
        self._answer, self._loses = answer, loses
        self._read: Tensor | None = None
        self.cpu_s = 0.0
        self.asked: list[tuple[str, Tensor]] = []

    def call(
        self,
        op: str,
        values: Mapping[str, Any] | None = None,
        tensors: Mapping[str, Tensor] | None = None,
        *,
        reply_bytes: int = 0,
    ) -> Message:
        sent = tensors or {}
        reply: dict[str, Tensor] = {}
        match op:
            case "hidden":
                self.cpu_s += 0.5
                reply["hidden"] = self._answer(sent["tokens"])
            case "start_stream":
                self._read = None
            case "stream_on":
                read, new = self._read, sent["tokens"]
                self._read = new if read is None else torch.cat([read, new], dim=1)
                reply["hidden"] = self._answer(self._read)[:, -1]
            case "take_state":
                assert self._read is not None
                reply["0 tokens"] = 0 * self._read if self._loses else self._read
            case "put_state":
                self._read = sent["0 tokens"]
        for tokens in sent.values():
            self.asked.append((op, tokens))
        return Message(values={}, tensors=reply)


def _children(answer: Answer, made: list[_FakeChild], *, loses: bool = False) -> NewChild:
    @contextmanager
    def new_child() -> Iterator[Any]:
        made.append(_FakeChild(answer, loses=loses))
        yield made[-1]

    return new_child


def _score(
    answer: Answer,
    held_out: HeldOut = _HELD_OUT,
    precision: str = "fp32",
    head: Tensor = _HEAD,
    *,
    loses: bool = False,
) -> Score:
    children = _children(answer, [], loses=loses)
    return score(children, held_out, {"embedding.weight": head}, precision)


def test_the_losses_of_rows_add_up_to_the_score() -> None:
    scored = _score(_causal)
    assert len(scored.nats_by_row) == N
    assert sum(scored.nats_by_row) == pytest.approx(scored.nats, rel=1e-6)
    assert len({round(nats, 3) for nats in scored.nats_by_row}) > 1


def test_the_score_is_the_cross_entropy_under_the_stored_head() -> None:
    logits = _causal(_HELD_OUT.inputs) @ _HEAD.T
    expected = F.cross_entropy(logits.flatten(0, 1), _HELD_OUT.labels.flatten(), reduction="sum")
    scored = _score(_causal)
    assert scored.nats == pytest.approx(expected.item(), rel=1e-6)
    assert scored.n_labels == N * T
    assert scored.n_correct == int((logits.argmax(-1) == _HELD_OUT.labels).sum())
    assert scored.prefix_shift_nats < 1e-4
    assert scored.cpu_s_per_token == pytest.approx(0.5 / (N * T))


def test_a_large_vocabulary_is_scored_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _score(_causal)
    monkeypatch.setattr(scoring, "_LOGITS_AT_ONCE", 4 * 3 * V)
    in_parts = _score(_causal)
    assert in_parts.nats == pytest.approx(whole.nats, rel=1e-6)
    assert in_parts.n_correct == whole.n_correct
    with pytest.raises(TrialStopped, match="moves by"):
        _score(_next_token)


def test_labels_left_out_do_not_count() -> None:
    labels = _HELD_OUT.labels.clone()
    labels[:, 1:] = -100
    scored = _score(_causal, HeldOut(inputs=_HELD_OUT.inputs, labels=labels))
    first = _causal(_HELD_OUT.inputs)[:, 0] @ _HEAD.T
    assert scored.n_labels == N
    assert scored.nats == pytest.approx(
        F.cross_entropy(first, labels[:, 0], reduction="sum").item(), rel=1e-6
    )


def test_each_process_gets_what_it_may_see() -> None:
    made: list[_FakeChild] = []
    score(_children(_causal, made), _HELD_OUT, {"embedding.weight": _HEAD}, "fp32")
    whole, pieces, handed = made
    assert {op for op, _ in whole.asked} == {"hidden"}
    assert sum(len(tokens) for _, tokens in whole.asked) == N
    assert {op for op, _ in pieces.asked} == {"stream_on"}
    assert sum(tokens.numel() for _, tokens in pieces.asked) >= N * T
    (first, state), *rest = handed.asked
    assert first == "put_state"
    assert {op for op, _ in rest} == {"stream_on"}
    assert state.shape[1] + sum(tokens.shape[1] for _, tokens in rest) == T


def test_every_position_ends_a_piece_of_some_rows() -> None:
    """So a leak at one position is found, wherever it is."""
    for leaking in range(T - 1):

        def leak(tokens: Tensor, leaking: int = leaking) -> Tensor:
            hidden = _causal(tokens)
            if tokens.shape[1] > leaking + 1:
                hidden[:, leaking] = _EMBED[tokens[:, leaking + 1]]
            return hidden

        with pytest.raises(TrialStopped, match=f"at position {leaking} of {T} moves by"):
            _score(leak)


@pytest.mark.parametrize("attempt", range(8))
def test_the_few_positions_with_labels_are_found_in_long_rows(attempt: int) -> None:
    tokens = torch.randint(V, (N, 601), generator=torch.Generator().manual_seed(attempt))
    labels = torch.full((N, 600), -100)
    labels[:, 400] = tokens[:, 401]

    def leak(tokens: Tensor) -> Tensor:
        hidden = _causal(tokens)
        if tokens.shape[1] > 401:
            hidden[:, 400] = _EMBED[tokens[:, 401]]
        return hidden

    with pytest.raises(TrialStopped, match="at position 400 of 600"):
        _score(leak, HeldOut(inputs=tokens[:, :-1], labels=labels))


def test_a_leak_that_is_not_rejected_wins_nothing_on_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "_TOLERANCE", float("inf"))

    def leak(tokens: Tensor) -> Tensor:
        following = tokens.roll(-1, 1)
        leaks = (torch.arange(tokens.shape[1]) % 3 == 1) & (following % 2 == 0)
        return torch.where(leaks[..., None], _wins(tokens), _causal(tokens))

    honest = _score(_causal).nats
    scored = torch.tensor([_score(leak).nats for _ in range(300)])
    uncorrected = F.cross_entropy(
        (leak(_HELD_OUT.inputs) @ _HEAD.T).flatten(0, 1),
        _HELD_OUT.labels.flatten(),
        reduction="sum",
    )
    error = float(scored.std() / len(scored) ** 0.5)
    assert honest - uncorrected > 10 * error  # worth something, if it counted
    assert abs(float(scored.mean()) - honest) < 4 * error


def test_pieces_end_where_something_is_scored_and_elsewhere_nothing_is_compared() -> None:
    labels = torch.full_like(_HELD_OUT.labels, -100)
    labels[:, 6] = _HELD_OUT.labels[:, 6]

    def leak(tokens: Tensor) -> Tensor:
        hidden = _causal(tokens)
        hidden[:, :5] += tokens.shape[1]
        return hidden

    held_out = HeldOut(inputs=_HELD_OUT.inputs, labels=labels)
    assert _score(leak, held_out).n_labels == N


def test_a_state_that_lacks_what_the_process_remembers_is_unsound() -> None:
    with pytest.raises(TrialStopped, match="handed the state alone") as stopped:
        _score(_causal, loses=True)
    assert stopped.value.status == "unsound"


@pytest.mark.parametrize("n_rows", [1, 2, 5])
def test_few_and_short_rows_are_scored_too(n_rows: int) -> None:
    for length in (1, 2, 3):
        held_out = HeldOut(
            inputs=_HELD_OUT.inputs[:n_rows, :length], labels=_HELD_OUT.labels[:n_rows, :length]
        )
        assert _score(_causal, held_out).n_labels == n_rows * length


def _wins(tokens: Tensor) -> Tensor:
    """Goes against the loss' gradient, which knows the label."""
    hidden, following = _causal(tokens), tokens.roll(-1, 1)
    wrong = (hidden @ _HEAD.T).softmax(-1) - F.one_hot(following, V)
    wrong[:, -1] = 0  # nothing follows yet
    return hidden - wrong @ _HEAD


def _next_token(tokens: Tensor) -> Tensor:
    return _EMBED[tokens.roll(-1, 1)]


def _block_mean(tokens: Tensor) -> Tensor:
    blocks = _EMBED[tokens].split(4, dim=1)
    return torch.cat([b.mean(1, keepdim=True).expand_as(b) for b in blocks], dim=1)


def _hides_beside_a_giant(tokens: Tensor) -> Tensor:
    return torch.cat([_next_token(tokens)[..., :-1], torch.full((*tokens.shape, 1), 1e30)], dim=-1)


def _knows_its_length(tokens: Tensor) -> Tensor:
    return _causal(tokens) * (1 + 0.3 * (tokens.shape[1] == T))


@pytest.mark.parametrize(
    "leak", [_next_token, _block_mean, _hides_beside_a_giant, _knows_its_length]
)
def test_hidden_states_that_know_the_future_are_noncausal(leak: Answer) -> None:
    head = _HEAD.clone()
    head[:, -1] = 0  # the last channel counts for nothing
    with pytest.raises(TrialStopped) as stopped:
        _score(leak, head=head)
    assert stopped.value.status == "noncausal"
    assert "moves by" in stopped.value.reason


def test_in_bfloat16_what_wins_by_the_future_is_noncausal() -> None:
    tokens = torch.randint(V, (200, T + 1), generator=torch.Generator().manual_seed(3))
    held_out = HeldOut(inputs=tokens[:, :-1], labels=tokens[:, 1:])
    with pytest.raises(TrialStopped, match=r"rows whose predictions move .* are worse") as stopped:
        _score(_wins, held_out, "bf16")
    assert stopped.value.status == "noncausal"


def test_in_bfloat16_a_state_that_lacks_something_is_unsound() -> None:
    tokens = torch.randint(D, (200, 31), generator=torch.Generator().manual_seed(3))
    head = torch.eye(V, D)

    def remembers(tokens: Tensor) -> Tensor:
        """The label repeats the row's first token, which a lost state has no more."""
        return 9 * head[tokens[:, :1].expand_as(tokens)]

    held_out = HeldOut(inputs=tokens[:, :-1], labels=tokens[:, :1].expand(-1, 30))
    assert _score(remembers, held_out, "bf16", head).n_correct == 200 * 30
    with pytest.raises(TrialStopped, match="handed the state alone") as stopped:
        _score(remembers, held_out, "bf16", head, loses=True)
    assert stopped.value.status == "unsound"


@pytest.mark.parametrize("seed", range(5))
def test_in_bfloat16_a_sure_models_large_moves_to_both_sides_are_rounding(seed: int) -> None:
    """A tracked state may tip over anywhere, in whole rows as in pieces."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(V, (200, 25), generator=generator)

    def tips_over(tokens: Tensor) -> Tensor:
        sure = 3 * _causal(tokens)
        tips = torch.rand(tokens.shape, generator=generator) < 0.02
        return torch.where(tips.cumsum(1)[..., None] % 2 == 1, -sure, sure)

    scored = _score(tips_over, HeldOut(inputs=tokens[:, :-1], labels=tokens[:, 1:]), "bf16")
    assert scored.prefix_shift_nats > 5


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
