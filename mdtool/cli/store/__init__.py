"""`mdtool store`: the command, its subcommands, and how each says what it did."""

from mdtool.cli.store.command import app

__all__ = ["app"]
