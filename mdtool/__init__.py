"""mdtool: a command-line toolkit for streams of market data."""


def __getattr__(name: str) -> str:
    """Return `__version__`, which is looked up once asked for: that brings half the library in."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("mdtool")
