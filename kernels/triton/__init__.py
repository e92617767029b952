"""Triton forms: one fused kernel a pass, registered as torch operators. Imported only on a GPU."""
