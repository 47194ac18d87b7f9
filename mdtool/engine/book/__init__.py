"""L3 order books rebuilt from MBO records: the kernel, its state, and its queries."""
