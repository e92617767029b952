"""Triton forms: fused kernels, registered as torch operators. Imported where they are asked for."""
