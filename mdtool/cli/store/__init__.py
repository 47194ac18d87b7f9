"""`mdtool store`: the command and its subcommands."""

from mdtool.cli.store.command import app

__all__ = ["app"]
