"""mdtool: a command-line toolkit for streams of market data."""

from importlib.metadata import version

__version__ = version("mdtool")
