"""A museum of sources: what is in the contract's form passes, everything else gets one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from linearch.errors import CandidateRejected
from linearch.search_space.contract import ALLOWED_IMPORTS
from linearch.search_space.source_check import check_source, source_hash

GOOD = '''"""Projects every token by itself."""
import torch
from torch import nn
from linearch.kernels import chunk_decay
from linearch.search_space.layers import RMSNorm

class Mixer(nn.Module):
    pattern = "LLA"
    def __init__(self, d_model, n_heads, layer_idx, n_layers):
        super().__init__()
        self.proj = nn.Linear(d_model, d_model)
    def forward(self, x, state=None):
        return self.proj(x), {}
'''

TORCH, NN = "import torch\n", "from torch import nn"


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def reason_for(source: str | bytes) -> str:
    with pytest.raises(CandidateRejected) as rejected:
        check_source(source)
    assert rejected.value.check == "source"
    reason = rejected.value.reason
    assert reason.endswith(".")
    assert "\n" not in reason
    return reason


def test_a_source_in_form_is_described() -> None:
    checked = check_source(GOOD)
    assert checked.source == GOOD
    assert checked.pattern == "LLA"
    assert checked.docstring == "Projects every token by itself."
    assert checked.source_hash == source_hash(GOOD)


def test_the_pattern_defaults_to_this_mixer_everywhere() -> None:
    assert check_source(changed('    pattern = "LLA"\n', "")).pattern == "L"


@pytest.mark.parametrize(
    "source",
    [
        changed("class Mixer(nn.Module)", "class Mixer(torch.nn.Module)"),
        changed(NN, "import torch.nn as nn"),
        changed(NN, "from torch.nn import functional as F\nfrom torch import nn"),
        changed("nn.Module", "Module").replace(NN, NN + "\nfrom torch.nn import Module"),
        changed("class Mixer(nn.Module)", "class _Base(nn.Module):\n    pass\nclass Mixer(_Base)"),
        changed("class Mixer", "WIDTH: int = 4\ndef _mix(x):\n    return x\nclass Mixer"),
        changed("class Mixer", "class _Gate(nn.Module):\n    pass\nclass Mixer"),
        changed(TORCH, "from __future__ import annotations\nimport math\nimport torch\n"),
        changed(TORCH, "from torch.utils.checkpoint import checkpoint\n"),
        changed(TORCH, "from linearch import kernels\nimport torch.nn.functional as F\n"),
        changed(TORCH, "import einops\nimport linearch.search_space.layers as L\n"),
        changed("super().__init__()", "super().__init__(); self.rate = torch.ones(()).item()"),
        changed("n_layers)", "n_layers: int = 1) -> None"),
        changed("pattern = ", "pattern: str = "),
        GOOD.replace("\n", "\r\n"),
        GOOD.encode(),
    ],
    ids=lambda source: None,
)  # fmt: skip
def test_a_legitimate_variation_passes(source: str | bytes) -> None:
    check_source(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (changed("class Mixer", "class _Mixer"), "no class `Mixer`"),
        (GOOD + "class Other(nn.Module):\n    pass\n", "Line 14: `Other` is a second public class"),
        (GOOD + GOOD.partition("\n\n")[2], "Line 14: `Mixer` is a second public class"),
        (changed("(nn.Module)", ""), "Line 7: `Mixer` must be a subclass of torch.nn.Module"),
        (changed("(nn.Module)", "(nn.Linear)"), "Line 7: `Mixer` must be a subclass"),
        (changed("n_layers)", "n_layers, expand)"), "Line 9: the signature must be `__init__("),
        (changed("n_layers)", "*, n_layers)"), "Line 9: the signature must be"),
        (changed("layer_idx", "layer"), "got `__init__(self, d_model, n_heads, layer, n_layers)`"),
        (changed("d_model, n_heads, layer_idx, n_layers", "**kw"), "got `__init__(self, **kw)`"),
        (changed("state=None", "state"), "Line 12: the signature must be `forward(self, x, state"),
        (changed("state=None", "state={}"), "got `forward(self, x, state=…)`"),
        (changed("forward", "step"), "must define `forward(self, x, state=None)`"),
        (changed("    def forward", "    @torch.no_grad()\n    def forward"), "under a decorator"),
        (changed('"LLA"', '"LXA"'), "Line 8: the pattern 'LXA' must be"),
        (changed('"LLA"', '""'), "Line 8: the pattern '' must be"),
        (changed('"LLA"', '"A"'), "Line 8: the pattern 'A' never uses this mixer"),
        (changed('"LLA"', '"L" * 3'), "Line 8: `pattern` must be a literal string"),
        (changed('"LLA"', "3"), "Line 8: `pattern` must be a literal string"),
        (GOOD + "for i in range(3): pass\n", "Line 14: the top level may hold"),
        (GOOD + "print(1)\n", "Line 14: the top level may hold"),
        (changed(TORCH, "try:\n    import torch\nfinally:\n    pass\n"), "kind `Try`"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_rejected_with_its_line(source: str, expected: str) -> None:
    assert expected in reason_for(source)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("import os", "importing `os` is not allowed"),
        ("import torch, subprocess", "importing `subprocess` is not allowed"),
        ("import importlib", "importing `importlib` is not allowed"),
        ("from pathlib import Path", "importing `pathlib.Path` is not allowed"),
        ("import torch.utils.cpp_extension", "`torch.utils.cpp_extension` is not allowed"),
        ("from torch.utils import cpp_extension", "`torch.utils.cpp_extension` is not allowed"),
        ("from torch import load", "`torch.load` is not allowed"),
        ("import torch.distributed as dist", "`torch.distributed` is not allowed"),
        ("from torch import *", "import *` is not allowed"),
        ("from . import layers", "relative imports are not allowed"),
        ("import linearch.evaluator", "importing `linearch.evaluator` is not allowed"),
        ("from linearch import api", "importing `linearch.api` is not allowed"),
        ("from linearch.kernels.naive import decay", "import from `linearch.kernels` itself"),
        ("import linearch.search_space.layers", "write `from linearch.search_space.layers import"),
    ],
)
def test_an_import_outside_the_list_is_rejected(statement: str, expected: str) -> None:
    assert reason_for(changed(TORCH, statement + "\n")).startswith("Line 2: ")
    assert expected in reason_for(changed(TORCH, statement + "\n"))


@pytest.mark.parametrize("name", ALLOWED_IMPORTS)
def test_every_listed_import_is_allowed(name: str) -> None:
    line = (
        f"import {name} as listed" if name != "__future__" else "from __future__ import annotations"
    )
    check_source(changed(TORCH, f"{line}\nimport torch\n"))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("__import__('os')", "`__import__` is not allowed"),
        ("exec('1')", "`exec` is not allowed"),
        ("eval('x')", "`eval` is not allowed"),
        ("open('/etc/passwd')", "`open` is not allowed"),
        ("compile('1', '', 'eval')", "`compile` is not allowed"),
        ("__builtins__", "`__builtins__` is not allowed"),
        ("().__class__.__base__.__subclasses__()", "is not allowed in a mixer"),
        ("self.forward.__globals__", "the attribute `__globals__` is not allowed"),
        ("getattr(x, '__class__')", "the string '__class__' is not allowed"),
        ("torch.load('weights')", "`torch.load` is not allowed in a mixer: it touches files"),
        ("torch.os.system('id')", "`torch.os` is not allowed"),
        ("torch.compile(self.proj)(x)", "the trainer alone decides what is compiled"),
        ("torch.manual_seed(0)", "seeds are the trainer's"),
        ("x.sum().item()", "`.item` is not allowed: it stops CUDA graphs"),
        ("x.tolist()", "`.tolist` is not allowed"),
    ],
)
def test_a_trick_in_the_code_is_rejected(expression: str, expected: str) -> None:
    reason = reason_for(changed("self.proj(x)", expression))
    assert reason.startswith("Line 13: ")
    assert expected in reason


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", "no class `Mixer`"),
        ("class Mixer(:\n", "Line 1: the source is not valid Python"),
        (GOOD + "\0", "Line 14: the source holds a NUL byte"),
        (b"\xff\xfe" + GOOD.encode(), "not valid UTF-8"),
        (GOOD + "# \ud800", "not valid UTF-8"),
        ("\ufeff" + GOOD, "Line 1: the source is not valid Python"),
        (GOOD + "#" * 70_000, "at most 65,536 are allowed"),
        ("x = " + "-" * 60_000 + "1", "nested too deeply"),
        ("x = " + "[" * 30_000, "Line 1: the source is not valid Python"),
        ("x = " + "lambda: " * 8_000 + "1", "nested too deeply"),
        ("x = a" + ".b" * 30_000, "nested too deeply"),
        ("x = " + "+".join("1" * 20_000), "nested too deeply"),
        (GOOD + "x = " + "9" * 5_000, "Line 14: the source is not valid Python"),
        (changed("n_layers)", "n_layers, huge=0x" + "f" * 9_000 + ")"), "huge=…)`"),
        ("\n".join(" " * i + "if x:" for i in range(150)), "too many levels of indentation"),
    ],
)
def test_hostile_text_is_a_rejection_and_never_a_crash(source: str | bytes, expected: str) -> None:
    assert expected in reason_for(source)


def test_a_huge_hexadecimal_number_is_no_problem() -> None:
    check_source(GOOD + "_X = 0x" + "f" * 9_000 + "\n")


def test_a_long_name_is_cut_in_the_reason() -> None:
    assert len(reason_for(GOOD + f"class {'A' * 5_000}:\n    pass\n")) < 300


def test_the_size_limit_can_be_set() -> None:
    with pytest.raises(CandidateRejected, match="at most 100 are allowed"):
        check_source(GOOD, max_bytes=100)


def test_checking_a_source_loads_no_torch() -> None:
    code = (
        "import sys; from linearch.search_space import BASELINES, baseline_source, check_source\n"
        "[check_source(baseline_source(name)) for name in BASELINES]\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
