"""The Triton forms, for CUDA tensors; the operation's module above chooses."""
