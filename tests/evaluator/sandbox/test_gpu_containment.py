"""On a GPU: what a confined child can still do there, and that the same acts are refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from linearch.evaluator.mps import MpsUnavailable, shared_gpu
from linearch.evaluator.sandbox.failures import ChildFailed
from linearch.evaluator.sandbox.limits import MIB, Limits
from linearch.evaluator.sandbox.processes import tree_below
from linearch.evaluator.sandbox.python_places import standard_library
from linearch.evaluator.sandbox.selftest import acts_not_refused
from linearch.evaluator.sandbox.supervisor import Sandbox

MakeSource = Callable[..., str]

pytestmark = pytest.mark.gpu

_LIMITS = Limits(wall_s=60, memory_bytes=16_384 * MIB, caps_address_space=False)
_MODEL = {
    "vocab_size": 256,
    "d_model": 64,
    "n_layers": 2,
    "n_heads": 2,
    "mlp_width": 128,
    "pattern": "L",
    "window": 64,
}
_RECIPE = {
    "learning_rate": 1e-3,
    "total_steps": 50,
    "cooldown_steps": 5,
    "warmup_steps": 5,
    "weight_decay": 0.1,
    "betas": (0.9, 0.95),
    "clip_norm": 1.0,
    "precision": "bf16",
    "seed": 0,
    "batch_size": 8,
    "seq_len": 128,
}
# Runs a function of ours on the driver's own thread, which was there before the candidate.
_ON_THE_DRIVERS_THREAD = """
driver = ctypes.CDLL("libcuda.so.1")
said = []

@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def callback(_):
    import threading
    try:
        open({path!r}).read()
        said.append("read it")
    except OSError as error:
        said.append(f"refused {{error.errno}}")
    said.append(threading.get_native_id() != os.getpid())

stream = torch.cuda.current_stream().cuda_stream
print(driver.cuLaunchHostFunc(ctypes.c_void_p(stream), callback, None))
torch.cuda.synchronize()
print(said)
"""

_TRITON = """
import triton
import triton.language as tl

@triton.jit
def double(x, n: tl.constexpr):
    at = tl.arange(0, n)
    tl.store(x + at, 2 * tl.load(x + at))

x = torch.arange(64.0, device="cuda")
double[(1,)](x, 64)
assert torch.equal(x.cpu(), 2 * torch.arange(64.0))
print("doubled")
"""


@pytest.fixture(
    scope="module", params=["strict", "compile", "strict under MPS", "compile under MPS"]
)
def gpu_sandbox(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("gpu")
    profile, _, sharing = request.param.partition(" ")
    with ExitStack() as stack:
        mps = None
        if sharing:
            try:
                mps = stack.enter_context(shared_gpu())
            except MpsUnavailable as error:
                pytest.skip(str(error))
        yield stack.enter_context(Sandbox(folder, device="cuda", profile=profile, mps=mps))


def _load(sandbox: Sandbox, limits: Limits, source: str) -> tuple[ChildFailed | None, str]:
    with sandbox.spawn(limits) as child:
        failure = None
        try:
            child.call("load", {"source": source, "convention": "linearch"})
        except ChildFailed as failed:
            failure = failed
        child.close()
    assert sandbox.zygote_pid is not None
    assert tree_below(sandbox.zygote_pid, 99) == []
    return failure, child.printed


def test_every_act_is_refused_with_the_devices_of_the_gpu_open(gpu_sandbox: Sandbox) -> None:
    assert gpu_sandbox.containment.failed_acts == ()
    assert gpu_sandbox.containment.refusal is None


def test_every_act_is_refused_with_cuda_up(
    gpu_sandbox: Sandbox, hostile_source: MakeSource, tmp_path: Path
) -> None:
    (tmp_path / "outside").touch()
    arguments = (
        gpu_sandbox.containment.profile,
        str(tmp_path / "outside"),
        "cuda",
        standard_library().withheld,
    )
    source = f"""
    from {acts_not_refused.__module__} import acts_not_refused
    torch.zeros(1, device="cuda")
    print(acts_not_refused(*{arguments!r}))
    """
    failure, printed = _load(gpu_sandbox, _LIMITS, hostile_source(top=source))
    assert (failure, printed.strip()) == (None, "[]")


def test_the_drivers_threads_are_confined_too(
    gpu_sandbox: Sandbox, hostile_source: MakeSource, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    source = _ON_THE_DRIVERS_THREAD.format(path=str(tmp_path / "secret"))
    failure, printed = _load(gpu_sandbox, _LIMITS, hostile_source(top=source))
    assert failure is None
    assert printed.split("\n")[:2] == ["0", "['refused 13', True]"]


def test_the_drivers_threads_would_be_a_way_out(tmp_path: Path, hostile_source: MakeSource) -> None:
    (tmp_path / "secret").write_text("secret")
    source = _ON_THE_DRIVERS_THREAD.format(path=str(tmp_path / "secret"))
    with Sandbox(tmp_path / "gpu", device="cuda", without=frozenset({"landlock"})) as sandbox:
        failure, printed = _load(sandbox, _LIMITS, hostile_source(top=source))
    assert failure is None
    assert printed.split("\n")[:2] == ["0", "['read it', True]"]


def test_triton_compiles_where_processes_are_allowed(
    gpu_sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    failure, printed = _load(gpu_sandbox, _LIMITS, hostile_source(top=_TRITON))
    if gpu_sandbox.containment.profile == "compile":
        assert (failure, printed.strip()) == (None, "doubled")
    else:
        assert failure is not None
        assert "which compilers need" in failure.message


def test_a_confined_child_trains(gpu_sandbox: Sandbox, mixer_source: MakeSource) -> None:
    with gpu_sandbox.spawn(_LIMITS) as child:
        child.call("load", {"source": mixer_source(), "convention": "linearch"})
        child.call("build", {"model": _MODEL, "seed": 0})
        reply = child.call("practise", {"recipe": _RECIPE})
        assert reply.values["diverged"] is False
        assert reply.tensors["head"].isfinite().all()


def test_a_memory_bomb_is_oom_and_the_next_child_has_memory(
    gpu_sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    bomb = """
    kept = []
    while True:
        kept.append(torch.zeros(1 << 28, device="cuda"))
    """
    small = replace(_LIMITS, gpu_memory_fraction=0.1)
    failure, _ = _load(gpu_sandbox, small, hostile_source(top=bomb))
    assert failure is not None
    assert failure.kind == "oom", failure.message
    fits = "torch.zeros(1 << 30, device='cuda'); print(torch.cuda.memory_reserved())"
    failure, printed = _load(gpu_sandbox, _LIMITS, hostile_source(top=fits))
    assert (failure, int(printed) >= 4 << 30) == (None, True)


def test_a_job_may_take_the_share_it_is_given_and_what_it_took_is_seen(
    gpu_sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    small = replace(_LIMITS, gpu_memory_fraction=0.01)
    four_gib = "kept = torch.zeros(1 << 30, device='cuda'); time.sleep(1)"
    gpu_sandbox.begin_job(0.5)
    failure, _ = _load(gpu_sandbox, small, hostile_source(top=four_gib))
    assert failure is None
    # Where the driver numbers processes otherwise it sees none.
    assert gpu_sandbox.peak_gpu_bytes == 0 or gpu_sandbox.peak_gpu_bytes >= 4 << 30
    gpu_sandbox.begin_job(None)
    assert gpu_sandbox.peak_gpu_bytes == 0
    failure, _ = _load(gpu_sandbox, small, hostile_source(top=four_gib))
    assert failure is not None
    assert failure.kind == "oom", failure.message


def test_memory_taken_past_the_allocator_is_seen_from_outside(
    gpu_sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    bomb = """
    driver = ctypes.CDLL("libcuda.so.1")
    for _ in range(30):
        held = ctypes.c_void_p()
        assert driver.cuMemAlloc_v2(ctypes.byref(held), ctypes.c_size_t(1 << 30)) == 0
        time.sleep(0.05)
    time.sleep(2)
    """
    small = replace(_LIMITS, gpu_memory_fraction=0.1)
    failure, _ = _load(gpu_sandbox, small, hostile_source(top=bomb))
    assert failure is not None
    assert failure.kind == "oom", failure.message


def test_an_endless_kernel_ends_at_the_deadline(
    gpu_sandbox: Sandbox, hostile_source: MakeSource
) -> None:
    endless = "torch.cuda._sleep(1 << 50)\ntorch.cuda.synchronize()"
    with gpu_sandbox.spawn(_LIMITS) as child:
        child.call("load", {"source": hostile_source(), "convention": "linearch"})
    started = time.monotonic()
    short = replace(_LIMITS, wall_s=6)
    failure, _ = _load(gpu_sandbox, short, hostile_source(top=endless))
    assert failure is not None
    assert failure.kind == "timeout"
    assert time.monotonic() - started < 6 + 2
    failure, printed = _load(
        gpu_sandbox, _LIMITS, hostile_source(top="print(torch.ones(3, device='cuda').sum().item())")
    )
    assert (failure, printed.strip()) == (None, "3.0")
