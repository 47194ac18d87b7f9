"""The errors of mdtool, one tree, and the exit status that each of them means.

MdtoolError                    1
├── UsageError                 2   the command line asks for what cannot be
│   └── ConfigError            2   a setting is unknown or out of range
├── StartupError               3   a service cannot start; a supervisor must not retry
├── InputError                 1   a source cannot be opened or is not what it should be
│   └── CorruptStreamError     1   a stream breaks off or turns to garbage, at a known offset
├── OutputError                1   a destination cannot be written
├── PeerError                  1   the other end of a connection refused or went away
└── CheckError                 1   a comparison that was asked for did not hold

What other libraries raise is wrapped where it is met (`raise ... from`), so that nothing but this
tree leaves a public function. Only `cli/` turns an error into an exit status.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STARTUP = 3
EXIT_INTERRUPTED = 130


class MdtoolError(Exception):
    """What went wrong, where, and what to do, in one line."""

    exit_code = EXIT_FAILED


class UsageError(MdtoolError):
    """The options of a command contradict each other or name something that does not exist."""

    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """A setting has an unknown key or a value that it cannot take."""


class StartupError(MdtoolError):
    """A service could not start and would not start a second time either: a taken port, say."""

    exit_code = EXIT_STARTUP


class InputError(MdtoolError):
    """A source does not exist, cannot be read, or does not hold what the command needs."""


class CorruptStreamError(InputError):
    """A stream is cut or corrupt; everything before `offset` was delivered.

    Attributes
    ----------
    source : str
        The file's name, or `stdin`, or an address.
    offset : int
        The byte, counted in the decompressed stream, at which the first bad record begins.
    record : int
        How many whole records came before it.
    """

    def __init__(
        self, source: str, offset: int, record: int, what: str, *, is_compressed: bool = False
    ) -> None:
        where = f"byte {offset}{' of the decompressed stream' if is_compressed else ''}"
        super().__init__(f"{source}: {what} at {where}, after {record:,} whole records")
        self.source = source
        self.offset = offset
        self.record = record


class OutputError(MdtoolError):
    """A destination exists already, or cannot be written."""


class PeerError(MdtoolError):
    """A server refused, broke the protocol, or went away for good."""


class CheckError(MdtoolError):
    """A verification, comparison or threshold that the user asked for did not hold."""
