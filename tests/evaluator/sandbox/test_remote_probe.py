"""The gates' view of a mixer through a child: answers come through, failures as what they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from linearch.config import GateConfig
from linearch.evaluator.gates import DEVICE_GATES, Precision, ProbeFacts, ProbeFailed, run_gates
from linearch.evaluator.sandbox.limits import Limits
from linearch.evaluator.sandbox.remote_probe import RemoteProbe
from linearch.evaluator.sandbox.supervisor import Sandbox

MakeSource = Callable[..., str]
OpenProbe = Callable[..., "contextmanager[RemoteProbe]"]

_FACTS = ProbeFacts(d_model=8, seq_len=32, n_layers=1, layer_index=0)
_MODEL = {
    "vocab_size": 16,
    "d_model": 8,
    "n_layers": 1,
    "n_heads": 1,
    "mlp_width": 8,
    "pattern": "L",
    "window": 4,
}
_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def open_probe(sandbox: Sandbox, limits: Limits) -> OpenProbe:
    @contextmanager
    def opened(source: str, **options: Any) -> Iterator[RemoteProbe]:
        with sandbox.spawn(limits) as child:
            child.call("load", {"source": source, "convention": "linearch"})
            if options.get("is_trained"):
                child.call("build", {"model": _MODEL, "seed": 5})
            yield RemoteProbe(child, _FACTS, n_heads=1, seed=0, **options)

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
        # once for each piece, and once for the other sequence that follows it
        assert probe._child.printed.split() == ["storage", "1"] * 4


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


def test_a_sound_mixer_passes_in_bfloat16(open_probe: OpenProbe, mixer_source: MakeSource) -> None:
    with open_probe(mixer_source(forward="y = y.to(x.dtype)"), precision="bf16") as probe:
        assert probe.facts.precision == "bf16"
        assert probe.forward(_X).dtype == torch.float32
        results = run_gates(probe, GateConfig(), 1, DEVICE_GATES)
    assert [(result.gate, result.reason) for result in results if not result.passed] == []


def test_what_comes_back_in_another_precision_is_the_mixers_fault(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    source = mixer_source(forward="y = y.float()")
    with open_probe(source, precision="bf16") as probe, pytest.raises(ProbeFailed) as failure:
        probe.forward(_X)
    assert "float32 for x of bfloat16" in failure.value.message
    assert not failure.value.is_final


def test_a_trained_layer_comes_without_jitter(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    source = mixer_source(init="self.proj.weight.data.zero_()")
    with open_probe(source, is_trained=True) as probe:
        assert not probe.forward(_X).any()
    with open_probe(source) as probe:
        assert probe.forward(_X).any()


def test_a_step_gives_answers_and_gradients_in_the_precision_asked_for(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    with open_probe(mixer_source(forward="y = y.to(x.dtype)")) as probe:
        full, low = (probe.step(_X, torch.ones_like(_X), precision) for precision in _PRECISIONS)
    assert full.y.dtype == low.y.dtype == torch.float32
    assert 0 < (full.y - low.y).abs().max() < 0.05
    assert full.x_gradient.shape == _X.shape
    assert full.x_gradient.any()
    assert full.gradients["proj.weight"].norm == pytest.approx(
        low.gradients["proj.weight"].norm, rel=0.05
    )


def test_a_step_of_another_shape_is_the_candidates_fault(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    forge = """
    import linearch.evaluator.sandbox.mixer_bench as bench
    _real = bench.MixerBench._step
    def _forged(self, request):
        facts, tensors = _real(self, request)
        return facts, {**tensors, "x_gradient": torch.zeros(())}
    bench.MixerBench._step = _forged
    """
    with open_probe(mixer_source(top=forge)) as probe, pytest.raises(ProbeFailed) as failure:
        probe.step(_X, torch.ones_like(_X), "fp32")
    assert failure.value.kind == "protocol"


def test_what_a_mixer_holds_is_listed_before_and_after(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    init = """
    self.register_buffer("count", torch.zeros(2))
    self.shelf = [torch.ones(3)]
    """
    with open_probe(mixer_source(init=init, forward="self.count += 1; self.late = x")) as probe:
        probe.forward(_X)
        found = probe.inventory()
    kinds = {name: held.kind for name, held in found.now.items()}
    assert kinds == {
        "proj.weight": "parameter",
        "count": "buffer",
        "shelf[0]": "attribute",
        "late": "attribute",
    }
    assert set(found.at_first) == {"proj.weight", "count", "shelf[0]"}
    assert found.at_first["count"].digest != found.now["count"].digest
    assert found.at_first["proj.weight"] == found.now["proj.weight"]


def test_costs_are_counted_in_the_child_and_timed_from_outside(
    open_probe: OpenProbe, mixer_source: MakeSource
) -> None:
    with open_probe(mixer_source()) as probe:
        short, long = probe.cost(64), probe.cost(128)
    for phase in ("forward", "backward", "evaluation"):
        assert long.phases[phase].elements > short.phases[phase].elements > 0
    products = [cost.phases["forward"].multiply_adds for cost in (short, long)]
    assert products == [64 * 8 * 8, 128 * 8 * 8]
    assert any(where == "line 16" for _, _, where in long.sites)
    assert long.cpu_s is not None
    assert 0 < long.cpu_s < 20
    assert long.wall_s > 0


def test_a_death_is_final_and_an_exception_is_not(
    open_probe: OpenProbe, hostile_source: MakeSource
) -> None:
    for forward, is_final in (("os._exit(0)", True), ("raise ValueError('no')", False)):
        with open_probe(hostile_source(forward=forward)) as probe:
            with pytest.raises(ProbeFailed) as failure:
                probe.forward(_X)
            assert failure.value.is_final is is_final
