"""The C stub that a kernel is launched through, which Triton up to 3.6 compiles for each."""

from __future__ import annotations

from typing import Any

from triton.backends.nvidia import driver

HAS_STUBS = hasattr(driver, "make_launcher")


def build_launch_stub(kernel: Any) -> Any:
    """Puts its stub into Triton's cache, where Triton has such; the kernel again.

    It needs a C compiler and the driver's library.
    """
    if HAS_STUBS:
        driver.CudaLauncher(kernel.src, kernel.metadata)
    return kernel
