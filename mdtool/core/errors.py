"""The errors of mdtool, as one tree, with the exit status of each.

MdtoolError                    1
├── UsageError                 2   the command line is not valid
│   └── ConfigError            2   a setting is unknown or out of range
├── StartupError               3   a service cannot start; a supervisor must not retry
├── InputError                 1   a source cannot be opened, or is not what is required
│   └── CorruptStreamError     1   a stream is truncated or corrupt, at a known offset
├── OutputError                1   a destination cannot be written
├── PeerError                  1   the other end of a connection rejected, failed or is lost
└── CheckError                 1   a requested comparison did not hold

Errors of other libraries are wrapped where they occur (`raise ... from`), so that public functions
raise only these. Only `cli/` turns an error into an exit status.
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
    """A setting has an unknown key or a value that is not valid."""


class StartupError(MdtoolError):
    """A service could not start, and a retry would not help: its port is in use, for instance."""

    exit_code = EXIT_STARTUP


class InputError(MdtoolError):
    """A source does not exist, cannot be read, or lacks what the command requires."""


class CorruptStreamError(InputError):
    """A stream is truncated or corrupt; everything before `offset` was delivered.

    Attributes
    ----------
    source : str
        The file's name, or `stdin`, or an address.
    offset : int
        The byte, counted in the decompressed stream, at which the first bad record begins.
    record : int
        How many whole records precede it.
    """

    def __init__(
        self,
        source: str,
        offset: int,
        record: int,
        what: str,
        *,
        is_compressed: bool = False,
        advice: str = "",
    ) -> None:
        where = f"byte {offset}{' of the decompressed stream' if is_compressed else ''}"
        then = f"; {advice}" if advice else ""
        super().__init__(f"{source}: {what} at {where}, after {record:,} whole records{then}")
        self.source = source
        self.offset = offset
        self.record = record


class OutputError(MdtoolError):
    """A destination exists already, or cannot be written."""


class PeerError(MdtoolError):
    """A server rejected a request, broke the protocol, or is lost for good."""


class CheckError(MdtoolError):
    """A verification, comparison or threshold that the user requested did not hold."""
