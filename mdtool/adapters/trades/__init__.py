"""Feeds of all trades as they are committed, each in a module of its own."""
