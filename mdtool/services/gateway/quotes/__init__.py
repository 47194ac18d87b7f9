"""Quotes: where they come from, which stand, and the paths that tell of them."""
