"""Files in ASI-Arch's convention become mixers without the libraries that they import."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from linearch.errors import CandidateRejected, UntrustedSource
from linearch.search_space import mixer_from_source, model_from_facts, source_hash
from linearch.search_space.asi_arch import load_asi_arch_class

BUILDABLE = (
    "delta_net_plain",
    "delta_net_conv_gate",
    "delta_net_block_mean",
    "delta_net_batch_norm",
    "delta_net_entropy",
)


@pytest.mark.parametrize("name", BUILDABLE)
@pytest.mark.parametrize("length", [1, 33, 128])
def test_a_layer_is_a_mixer_that_takes_whole_sequences(
    programs: dict[str, str], name: str, length: int
) -> None:
    mixer = load_asi_arch_class(programs[name], "candidate")(64, 2, 0, 2)
    x = torch.randn(2, length, 64, requires_grad=True)
    y, state = mixer(x)
    assert (y.shape, y.dtype, state) == (x.shape, x.dtype, {})
    y.square().mean().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert all(p.grad is not None for p in mixer.parameters())


def test_a_state_is_refused_in_a_clear_sentence(layer: str) -> None:
    mixer_class = load_asi_arch_class(layer, "candidate")
    assert mixer_class.can_stream is False
    with pytest.raises(ValueError, match="cannot go on from a state"):
        mixer_class(8, 2, 0, 1)(torch.zeros(1, 3, 8), {})


def test_auxiliary_losses_are_dropped_and_counted(programs: dict[str, str]) -> None:
    counts = {}
    for name in ("delta_net_plain", "delta_net_entropy"):
        mixer = load_asi_arch_class(programs[name], "candidate")(16, 2, 0, 1)
        mixer(torch.randn(1, 5, 16))
        counts[name] = mixer.n_dropped
    assert counts == {"delta_net_plain": 0, "delta_net_entropy": 1}


def _counting(layer: str, change: str) -> str:
    """A layer whose output grows with a number that each call changes."""
    init = 'self.register_buffer("_step", torch.zeros(1), persistent=False)'
    scaled = f"self._step {change}\n        return self.proj((1 + self._step) * hidden_states"
    with_buffer = layer.replace("        self.proj =", f"        {init}\n        self.proj =")
    return with_buffer.replace("return self.proj(hidden_states", scaled)


def test_a_count_of_calls_moves_in_training_steps_alone(layer: str) -> None:
    mixer = load_asi_arch_class(_counting(layer, "+= 1"), "candidate")(8, 2, 0, 1)
    x = torch.randn(1, 3, 8)
    mixer.eval()
    first = mixer(x)[0]
    first.sum().backward()  # what was put back is not part of the graph
    torch.testing.assert_close(mixer(x)[0], first)
    mixer.train()
    with torch.no_grad():
        mixer(x)
    assert mixer.layer._step.item() == 0
    mixer(x)
    assert mixer.layer._step.item() == 1
    mixer.eval()
    assert not torch.allclose(mixer(x)[0], first)


def test_any_other_memory_is_left_for_the_gates_to_find(layer: str) -> None:
    source = _counting(layer, "+= hidden_states.mean()")
    mixer = load_asi_arch_class(source, "candidate")(8, 2, 0, 1).eval()
    x = torch.randn(1, 3, 8)
    assert not torch.allclose(mixer(x)[0], mixer(x)[0])


def test_what_the_layer_raises_comes_out(programs: dict[str, str]) -> None:
    mixer_class = load_asi_arch_class(programs["delta_net_unbuilt"], "candidate")
    with pytest.raises(AttributeError, match="extra_dim"):
        mixer_class(64, 2, 0, 2)


def test_a_layer_that_returns_no_tensor_is_named(layer: str) -> None:
    source = layer.replace("return self.proj(hidden_states.cumsum(1)), None", "return None, None")
    with pytest.raises(TypeError, match="NoneType where its output belongs"):
        load_asi_arch_class(source, "candidate")(8, 2, 0, 1)(torch.zeros(1, 3, 8))


def test_a_name_that_is_no_module_class_is_rejected() -> None:
    with pytest.raises(CandidateRejected, match="no class `DeltaNet`"):
        load_asi_arch_class("class DeltaNet:\n    pass\n", "candidate_of_no_use")
    assert "candidate_of_no_use" not in sys.modules


def test_the_compiler_is_left_out_and_nothing_global_is_touched(layer: str) -> None:
    source = layer.replace(
        "class DeltaNet",
        "@torch.compile\ndef f(x):\n    return x\n\n\n@torch.compile(dynamic=True)\ndef g(x):\n"
        "    return f(x)\n\n\nh = torch.compile(g)\n\n\nclass DeltaNet",
    )
    before = (torch.compile, set(sys.modules))
    mixer_class = load_asi_arch_class(source, "candidate_plain")
    module = sys.modules.pop("candidate_plain")
    assert mixer_class.__module__ == "candidate_plain"
    assert [type(module.__dict__[name]).__name__ for name in "fgh"] == ["function"] * 3
    assert module.__dict__["h"] is module.__dict__["g"]
    assert torch.compile is before[0]
    assert not {name for name in sys.modules if name.split(".")[0] in ("fla", "transformers")}


def test_casts_to_half_precision_are_made_to_float32(layer: str) -> None:
    """As written, float32 times bfloat16 raises: such files were trained in bfloat16 alone."""
    cast = layer.replace("cumsum(1))", "cumsum(1).to(torch.bfloat16))")
    x = torch.randn(1, 3, 8)
    torch.manual_seed(0)
    plain = load_asi_arch_class(layer, "candidate")(8, 2, 0, 1)(x)[0]
    torch.manual_seed(0)
    torch.testing.assert_close(load_asi_arch_class(cast, "candidate")(8, 2, 0, 1)(x)[0], plain)
    written: dict[str, Any] = {}
    exec(compile(cast, "as written", "exec"), written)
    with pytest.raises(RuntimeError, match="BFloat16"):
        written["DeltaNet"](hidden_size=8)(x)


def test_tracebacks_show_the_line_of_the_file_as_it_was_given(programs: dict[str, str]) -> None:
    source = programs["delta_net_unbuilt"]
    line = next(i for i, text in enumerate(source.splitlines(), 1) if "self.extra_dim" in text)
    with pytest.raises(AttributeError) as caught:
        load_asi_arch_class(source, "candidate")(64, 2, 0, 2)
    frames = [entry for entry in caught.traceback if str(entry.path) == "<mixer candidate>"]
    assert [entry.lineno + 1 for entry in frames] == [line]


def test_no_library_of_theirs_is_needed(programs: dict[str, str]) -> None:
    code = (
        "import sys; sys.modules['fla'] = sys.modules['transformers'] = None\n"
        "from linearch.search_space.asi_arch import load_asi_arch_class\n"
        "print(load_asi_arch_class(sys.stdin.read(), 'c')(16, 2, 0, 1).__class__.__name__)"
    )
    source = programs["delta_net_conv_gate"]
    found = subprocess.run(
        [sys.executable, "-c", code], input=source, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "Mixer"


def test_replay_takes_the_convention_under_the_same_rules_of_trust(layer: str) -> None:
    with pytest.raises(UntrustedSource):
        mixer_from_source(layer)
    mixer_class = mixer_from_source(layer, {source_hash(layer)})
    assert mixer_class(8, 2, 0, 1)(torch.zeros(1, 3, 8))[1] == {}
    facts = {
        **{"source": layer, "vocab_size": 11, "d_model": 8, "n_layers": 2, "n_heads": 2},
        **{"mlp_width": 8, "pattern": "L", "window": 4},
    }
    model = model_from_facts(facts, trust=True)
    hidden, states = model(torch.zeros(1, 5, dtype=torch.int64))
    assert hidden.shape == (1, 5, 8)
    assert states == [{}, {}]
    with pytest.raises(ValueError, match="cannot go on from a state"):
        model.generate(torch.zeros(1, 3, dtype=torch.int64), 2)
