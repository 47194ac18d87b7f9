"""Floor 2: pure state machines over arrays, and their kernels."""
