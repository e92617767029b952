"""Triton and the kernel base, loaded before the fork as far as no GPU is needed for it.

A child that shares compiled kernels would otherwise import both, read all of Triton to name its
cache (half a gigabyte) and parse each kernel: about a second, and a trial has several children.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil

# Those that stand in for Triton's driver, which a child must not find replaced.
_NOT_LAUNCHED = ("warm", "tune_compile")


def preload_kernels() -> None:
    """For a zygote whose children read compiled kernels; does nothing in others."""
    if "LINEARCH_KERNEL_CACHE" not in os.environ:
        return
    import triton

    from ...kernels import triton as kernels

    with contextlib.suppress(ImportError):  # older Tritons have it elsewhere
        from triton.runtime.cache import triton_key

        triton_key()
    for found in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        if found.name.rpartition(".")[2] in _NOT_LAUNCHED:
            continue
        for value in vars(importlib.import_module(found.name)).values():
            if isinstance(value, triton.JITFunction):
                value.cache_key  # noqa: B018  # is kept
