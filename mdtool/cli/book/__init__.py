"""`mdtool book`: the command, its subcommands, and how each shows what it found."""

from mdtool.cli.book.command import app

__all__ = ["app"]
