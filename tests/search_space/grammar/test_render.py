"""What the grammar writes is a readable mixer under the contract, whatever the genome."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from linearch.search_space.contract import State, TokenMixer, state_bytes
from linearch.search_space.grammar import GENES, KNOWN, Genome, Space, describe, render
from linearch.search_space.loading import load_mixer_class
from linearch.search_space.source_check import check_source

ROOT = Path(__file__).parents[3]
N_SAMPLED = 56
T = 40  # longer than every window and convolution


def covering_genomes() -> list[Genome]:
    """The known genomes and seeded draws that between them hold every value of every gene."""
    rng = random.Random(7)
    drawn = [Space(n_layers=4).sample(rng) for _ in range(N_SAMPLED)]
    return [*KNOWN.values(), *drawn]


GENOMES = covering_genomes()
every_genome = pytest.mark.parametrize("genome", GENOMES, ids=lambda genome: describe(genome).name)


@cache
def build(genome: Genome, layer_idx: int = 1) -> TokenMixer:
    torch.manual_seed(0)
    mixer_class = load_mixer_class(render(genome), "mixer_of_the_grammar")
    return mixer_class(d_model=64, n_heads=2, layer_idx=layer_idx, n_layers=2)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def inputs(seed: int = 0) -> Tensor:
    return torch.randn(2, T, 64, generator=torch.Generator().manual_seed(seed))


def relative(error: Tensor, reference: Tensor) -> float:
    return float(error.abs().max() / reference.square().mean().sqrt())


def test_the_sample_holds_every_value_of_every_gene() -> None:
    for gene, choices in GENES.items():
        assert set(choices) <= {genome.to_dict()[gene] for genome in GENOMES}


@every_genome
def test_the_source_passes_the_check_and_names_its_pattern(genome: Genome) -> None:
    checked = check_source(render(genome))
    assert checked.pattern == genome.pattern
    assert checked.docstring is not None
    assert describe(genome).name in checked.docstring


@every_genome
def test_outputs_and_all_gradients_are_finite(genome: Genome) -> None:
    mixer = build(genome)
    y, _ = mixer(inputs())
    assert y.shape == (2, T, 64)
    mixer.zero_grad()
    y.square().mean().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_genome
def test_streaming_in_pieces_gives_what_the_whole_gives(genome: Genome) -> None:
    mixer, x = build(genome), inputs()
    pieces: list[Tensor] = []
    states: list[State] = []
    with torch.no_grad():
        whole, last = mixer(x)
        for piece in torch.split(x, [1, 1, 5, 20, 1, T - 28], dim=1):
            y, state = mixer(piece, states[-1] if states else None)
            pieces.append(y)
            states.append(state)
    assert relative(torch.cat(pieces, dim=1) - whole, whole) < 1e-4
    assert len({state_bytes([state]) for state in states}) == 1
    forms = [{name: (t.shape, t.dtype) for name, t in state.items()} for state in (*states, last)]
    assert all(form == forms[0] for form in forms)


@every_genome
def test_no_output_depends_on_a_later_token_or_another_sequence(genome: Genome) -> None:
    mixer, x = build(genome), inputs()
    other = x.clone()
    other[:, T // 2 :] = inputs(seed=1)[:, T // 2 :]
    other[1] = inputs(seed=2)[1]
    with torch.no_grad():
        whole, changed = mixer(x)[0], mixer(other)[0]
    assert relative(changed[0, : T // 2] - whole[0, : T // 2], whole) < 1e-5
    assert relative(changed[0, T // 2 :] - whole[0, T // 2 :], whole) > 1e-3


@pytest.mark.parametrize("update", list(GENES["update"]))
def test_outputs_stay_bounded_over_a_long_sequence(update: str) -> None:
    rng = random.Random(update)
    x = torch.randn(1, 1024, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        mixer = build(Space(n_layers=2).sample(rng, update=update))
        with torch.no_grad():
            y, _ = mixer(x)
        early, late = y[:, 64:128].square().mean().sqrt(), y[:, -64:].square().mean().sqrt()
        assert float(late / early) < 10


def test_half_precision_in_gives_half_precision_out() -> None:
    x = inputs().bfloat16()
    for genome in GENOMES[::6]:
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            y, state = build(genome)(x)
            again, _ = build(genome)(x, state)
        assert y.dtype == again.dtype == torch.bfloat16
        assert again.isfinite().all()


def test_different_genomes_have_different_normalised_sources() -> None:
    rng, space = random.Random(0), Space(n_layers=4)
    genomes = set(GENOMES) | {space.mutate(genome, rng, n_genes=1) for genome in GENOMES * 3}
    hashes = {check_source(render(genome)).normalised_hash for genome in genomes}
    assert len(hashes) == len(genomes)


def test_names_are_different_and_short() -> None:
    names = {describe(genome).name for genome in GENOMES}
    assert len(names) == len(GENOMES)
    assert all(re.fullmatch(r"[A-Za-z0-9-]{6,48}", name) for name in names)


def test_every_description_says_why_and_what_to_expect() -> None:
    for genome in GENOMES:
        words = describe(genome)
        assert words.motivation.endswith(".")
        assert words.expectation.endswith(".")
        assert len(words.motivation) > 40


def test_only_the_code_that_the_genes_need_is_written() -> None:
    plain = render(KNOWN["linear_attention"])
    assert not re.search(
        "log_decay|beta|conv|gate|window|share", plain.split("class Mixer")[1][200:]
    )
    assert "if " not in plain.split("def forward")[1]


def test_sources_are_formatted_as_ruff_formats(tmp_path: Path) -> None:
    for number, genome in enumerate(GENOMES):
        (tmp_path / f"mixer_{number}.py").write_text(render(genome))
    command = [sys.executable, "-m", "ruff", "--config", str(ROOT / "pyproject.toml")]
    for check in (["format", "--check"], ["check", "--no-cache"]):
        ended = subprocess.run(
            [*command[:3], *check, *command[3:], str(tmp_path)], capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
