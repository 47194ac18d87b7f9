"""`mdtool watch`: a live table of a VWAP feed."""

from mdtool.cli.watch.command import app

__all__ = ["app"]
