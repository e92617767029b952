"""The gates' view of a mixer through a child: answers come through, failures as what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from linearch.config import GateConfig
from linearch.evaluator.gates import ProbeFacts, ProbeFailed, run_gates
from linearch.evaluator.sandbox.limits import Limits
from linearch.evaluator.sandbox.remote_probe import RemoteProbe
from linearch.evaluator.sandbox.supervisor import Sandbox

MakeSource = Callable[..., str]
OpenProbe = Callable[[str], "contextmanager[RemoteProbe]"]

_FACTS = ProbeFacts(d_model=8, seq_len=32, n_layers=1, layer_index=0)
_X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def open_probe(sandbox: Sandbox, limits: Limits) -> OpenProbe:
    @contextmanager
    def opened(source: str) -> Iterator[RemoteProbe]:
        with sandbox.spawn(limits) as child:
            child.call("load", {"source": source})
            yield RemoteProbe(child, _FACTS, n_heads=1, seed=0)

    return opened


def test_a_sound_mixer_passes_every_gate(open_probe: OpenProbe, mixer_source: MakeSource) -> None:
    with open_probe(mixer_source()) as probe:
        results = run_gates(probe, GateConfig(), seed=1)
    assert [(result.gate, result.reason) for result in results if not result.passed] == []
    assert len(results) > 5


def test_a_leak_is_seen_through_the_process_boundary(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    with open_probe(mixer_source(forward="y = y + 1e-3 * x.mean(1, keepdim=True)")) as probe:
        results = run_gates(probe, GateConfig(), seed=1)
    assert [result.gate for result in results if not result.passed] == ["causality"]


def test_pieces_give_the_whole_and_their_states_are_measured(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    with open_probe(mixer_source()) as probe:
        whole = probe.forward(_X)
        streamed = probe.stream(_X, [2, 1, 2])
    torch.testing.assert_close(streamed.y, whole)
    assert [state.storage_bytes for state in streamed.states] == [2 * 8 * 4] * 3
    assert streamed.states[0].tensors["sum"].shape == (2, 1, 8)
    assert streamed.states[0].tensors["sum"].dtype == "float32"


def test_the_storage_behind_a_view_is_what_counts(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    with open_probe(mixer_source(forward="state = {'sum': total[:, -1:]}")) as probe:
        states = probe.stream(_X, [2, 3]).states
    assert [state.storage_bytes for state in states] == [2 * 2 * 8 * 4, 2 * 3 * 8 * 4]
    assert states[0].tensors["sum"].n_bytes == 2 * 8 * 4


def test_a_piece_gives_no_way_to_the_pieces_after_it(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    peek = "print('storage', x.untyped_storage().nbytes() // x.element_size() // x.numel())"
    with open_probe(mixer_source(forward=peek)) as probe:
        probe.stream(_X, [2, 3])
        probe._child.close()
        assert probe._child.printed.split() == ["storage", "1"] * 2


def test_gradients_tell_missing_zero_and_infinite_ones_apart(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    init = """
    self.unused = nn.Parameter(torch.ones(3))
    self.still = nn.Parameter(torch.ones(1))
    self.steep = nn.Parameter(torch.ones(1))
    """
    forward = "y = y + 0 * self.still + (x * 0).sum() * (self.steep - self.steep).sqrt()"
    with open_probe(mixer_source(init=init, forward=forward)) as probe:
        found = probe.gradients(_X, torch.ones_like(_X))
    assert found["unused"].norm is None
    assert found["unused"].numel == 3
    assert found["still"].norm == 0.0
    assert not found["steep"].is_finite
    assert found["proj.weight"].is_finite
    assert found["proj.weight"].norm > 0


@pytest.mark.parametrize(
    ("forward", "kind", "says"),
    [
        ("return y", "protocol", "the pair"),
        ("y = [y]", "protocol", "got list"),
        ("state = {'sum': {'inner': x}}", "protocol", "got dict"),
        ("state = {3: x}", "protocol", "text keys"),
        ("y = y.to_sparse()", "protocol", "dense"),
        ("y = y.repeat(1, 1, 99_999)", "protocol", "a frame of"),
        ("raise ValueError('no')", "raised", "ValueError: no (line "),
        ("os._exit(0)", "crashed", "status 0"),
    ],
)
def test_an_unusable_answer_is_a_failure_of_its_kind(
    forward: str, kind: str, says: str, open_probe: OpenProbe, hostile_source: MakeSource
) -> None:
    source = hostile_source(forward=forward)
    with open_probe(source) as probe, pytest.raises(ProbeFailed) as failure:
        probe.stream(_X, [5])
    assert (failure.value.kind, says in failure.value.message) == (kind, True), failure.value


def test_train_mode_draws_the_same_dropout_each_time_and_eval_mode_shows_noise(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    with open_probe(mixer_source(forward="y = y + torch.randn_like(y)")) as probe:
        assert torch.equal(probe.forward(_X, train=True), probe.forward(_X, train=True))
        assert not torch.equal(probe.forward(_X), probe.forward(_X))
