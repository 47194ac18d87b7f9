"""What a live gateway plays: files by dataset, or standard input."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from mdtool.adapters.byte_source import STDIN
from mdtool.adapters.dbn_files import Recording, dbn_files, open_source
from mdtool.adapters.dbn_select import Selection, selected
from mdtool.adapters.dbn_source import RecordSource
from mdtool.core.errors import InputError, UsageError

DEFINITION: Final = "definition"


@dataclass(frozen=True, slots=True)
class PipedInput(Recording):
    """Standard input, which is read once, as it arrives.

    Attributes
    ----------
    source : RecordSource
        It, whose header was read.
    """

    source: list[RecordSource] = field(default_factory=list)

    def open(self) -> RecordSource:
        """Return the input.

        Raises
        ------
        InputError
            When it was read already.
        """
        if not self.source:
            raise InputError("stdin: can be read only once; give files")
        return selected(self.source.pop(), self.selection)

    def identity(self) -> str:
        """Return a name: it is like no other stream."""
        return STDIN


@dataclass(frozen=True, slots=True)
class Input:
    """What is played of one dataset.

    Attributes
    ----------
    recording : Recording
    schemas : frozenset of str or None
        Those of its files, as their headers have them; None where one has none, as captures.
    definitions : Recording or None
        Its files of definitions, which say what symbols stand for.
    """

    recording: Recording
    schemas: frozenset[str] | None
    definitions: Recording | None = None

    @property
    def file(self) -> str | None:
        """Its file, where it is all of one; None of several, of a part, and of standard input."""
        recording = self.recording
        is_whole = self.can_repeat and recording.selection is None and len(recording.paths) == 1
        return recording.paths[0] if is_whole else None

    @property
    def can_repeat(self) -> bool:
        """Whether it can be read more than once."""
        return not isinstance(self.recording, PipedInput)

    def has(self, schema: str) -> bool:
        """Return whether it has records of a schema, as far as headers say."""
        return self.schemas is None or schema in self.schemas


def inputs(paths: Sequence[str], selection: Selection | None) -> dict[str, Input]:
    """Return the input by dataset. Of standard input, the header is read here.

    Raises
    ------
    UsageError, InputError
        When there is no such file, it is not DBN, or standard input is not the only one.
    """
    if STDIN in paths:
        if len(paths) > 1:
            raise UsageError("give files, or - alone: standard input is not merged with files")
        source = open_source(STDIN)
        piped = PipedInput((STDIN,), selection=selection, source=[source])
        schema = source.metadata.schema
        return {source.metadata.dataset: Input(piped, _schemas([schema and str(schema)]))}
    of: dict[str, dict[str, str | None]] = {}
    for path in dbn_files(paths):
        with open_source(path, is_one_of_many=True) as source:
            metadata = source.metadata
            schema = None if metadata.schema is None else str(metadata.schema)
            of.setdefault(metadata.dataset, {})[path] = schema
    found = {}
    for dataset, schema_of in of.items():
        defining = tuple(path for path, schema in schema_of.items() if schema == DEFINITION)
        found[dataset] = Input(
            Recording(tuple(schema_of), selection=selection),
            _schemas(schema_of.values()),
            Recording(defining) if defining else None,
        )
    return found


def _schemas(found: Collection[str | None]) -> frozenset[str] | None:
    known = frozenset(schema for schema in found if schema is not None)
    return None if None in found else known
