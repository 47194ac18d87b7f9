"""What a DBN stream is: from its header and first records, or from all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import databento_dbn as dbn
import numpy as np

from mdtool.adapters.byte_source import ByteSource, open_bytes
from mdtool.core.dtypes import RTYPE_SYMBOL_MAPPING
from mdtool.core.errors import CorruptStreamError
from mdtool.core.records import Records, index_timestamps
from mdtool.core.units import format_duration, format_price, format_time
from mdtool.wire.dbn import DbnDecoder, Run
from mdtool.wire.dbn_records import CONTROL_RTYPES, RTYPE_DEFINITION
from mdtool.wire.lot_definitions import lot_steps

_FIRST_BYTES: Final = 1 << 18
_CHUNK_BYTES: Final = 1 << 20
_GAPS_AT_MOST: Final = 1_000


@dataclass(slots=True)
class Seen:
    """What was found in the records of a stream.

    Attributes
    ----------
    gap_ns : int
        A longer time without records is a gap.
    counts : dict
        How many records there are of each schema, control records too.
    first_ns, last_ns : int or None
        The least and the greatest index timestamp of data.
    gaps : list
        Begin and end of the first thousand gaps, in the order of the stream.
    n_gaps : int
        How many gaps there are in all.
    backwards : int
        How many records have an earlier index timestamp than the one before.
    mappings : list
        What symbol mapping records say, as `StreamInfo.as_json` has it.
    """

    gap_ns: int
    counts: dict[str, int] = field(default_factory=dict)
    first_ns: int | None = None
    last_ns: int | None = None
    gaps: list[tuple[int, int]] = field(default_factory=list)
    n_gaps: int = 0
    backwards: int = 0
    mappings: list[dict[str, str | None]] = field(default_factory=list)
    lots: dict[str, int] = field(default_factory=dict)
    """What definition records say of the lots of sizes, in units of 1e-9, by symbol."""
    _before_ns: int | None = None

    def add(self, records: Records, header_schema: str | None) -> None:
        """Take records of one rtype."""
        rtype = int(records["rtype"][0])
        schema = _schema_of(rtype, header_schema)
        self.counts[schema] = self.counts.get(schema, 0) + len(records)
        if rtype == RTYPE_SYMBOL_MAPPING:
            for record in records:
                self._add_mapping(record)
        if rtype == RTYPE_DEFINITION:
            self.lots |= lot_steps(records)
        if rtype in CONTROL_RTYPES:
            return
        times = index_timestamps(records)
        times = times[times >= 0]
        if not len(times):
            return
        low, high = int(times.min()), int(times.max())
        self.first_ns = low if self.first_ns is None else min(self.first_ns, low)
        self.last_ns = high if self.last_ns is None else max(self.last_ns, high)
        if self._before_ns is not None:
            times = np.concatenate([[self._before_ns], times])
        self._before_ns = int(times[-1])
        steps = np.diff(times)
        self.backwards += int((steps < 0).sum())
        at = np.flatnonzero(steps > self.gap_ns)
        self.n_gaps += len(at)
        for k in at[: max(0, _GAPS_AT_MOST - len(self.gaps))].tolist():
            self.gaps.append((int(times[k]), int(times[k + 1])))

    def _add_mapping(self, record: np.void) -> None:
        names = [
            record[name].decode("ascii", "replace")
            for name in ("stype_in_symbol", "stype_out_symbol")
        ]
        # The second is the raw symbol, or the id where the first is that.
        name = names[0] if names[1].isdigit() else names[1]
        self.mappings.append(
            {
                "name": name,
                "start": format_time(int(record["ts_event"])) or None,
                "end": None,
                "symbol": str(record["instrument_id"]),
            }
        )


class StreamInfo:
    """What a DBN file, or standard input, is.

    Parameters
    ----------
    path : str
        A file, or `-`.
    is_deep : bool
        Whether to read all records; else the first ones.
    gap_ns : int
        As `Seen.gap_ns`.

    Attributes
    ----------
    name : str
    error : CorruptStreamError or None
        Where the stream breaks off.

    Raises
    ------
    InputError
        When there is no such file, or it is not a DBN stream.
    """

    def __init__(self, path: str, is_deep: bool, gap_ns: int) -> None:
        self.error: CorruptStreamError | None = None
        self._is_deep = is_deep
        self._seen = Seen(gap_ns)
        self._headers: list[dbn.Metadata] = []
        self._latest: dbn.Metadata | None = None
        source = open_bytes(path)
        self.name = source.name
        self._size_bytes = source.size_bytes
        self._decoder = DbnDecoder(source.name)
        try:
            self._read(source)
        finally:
            source.close()
        assert self._decoder.metadata is not None
        self._metadata = self._decoder.metadata
        if self._metadata not in self._headers[:1]:
            self._headers.insert(0, self._metadata)

    def _read(self, source: ByteSource) -> None:
        decoder = self._decoder
        n_bytes = _CHUNK_BYTES if self._is_deep else _FIRST_BYTES
        try:
            while decoder.has_more or (data := source.read(n_bytes)):
                for run in decoder.decode(b"" if decoder.has_more else data):
                    self._add(run)
                if decoder.records and not self._is_deep:
                    return
            decoder.finish()
        except CorruptStreamError as error:
            if decoder.metadata is None:
                raise
            self.error = error

    def _add(self, run: Run) -> None:
        if run.metadata is not self._latest:
            self._latest = run.metadata
            self._headers.append(run.metadata)
        schema = run.metadata.schema
        self._seen.add(run.records, None if schema is None else str(schema))

    def _unknown(self) -> dict[str, int]:
        return {f"rtype-{rtype}": count for rtype, count in self._decoder.unknown.items()}

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON takes it; times are ISO-8601 strings."""
        metadata, seen = self._metadata, self._seen
        report: dict[str, Any] = {
            "input": self.name,
            "size_bytes": self._size_bytes,
            "dataset": metadata.dataset,
            "schema": None if metadata.schema is None else str(metadata.schema),
            "schemas": sorted(seen.counts),
            "version": self._decoder.version,
            "compression": self._decoder.compression,
            "ts_out": metadata.ts_out,
            "stype_in": None if metadata.stype_in is None else str(metadata.stype_in),
            "stype_out": str(metadata.stype_out),
            "start": _time(metadata.start),
            "end": _time(metadata.end),
            "limit": metadata.limit,
            "symbols": list(metadata.symbols)
            or sorted({str(each["name"]) for each in seen.mappings}),
            "partial": list(metadata.partial),
            "not_found": list(metadata.not_found),
            "mappings": [*_mappings(self._headers), *seen.mappings],
            "lots": [
                {"symbol": symbol, "lot": format_price(step)} for symbol, step in seen.lots.items()
            ],
            "first_timestamp": _time(seen.first_ns),
            "is_whole": self.error is None if self._is_deep else None,
        }
        if not self._is_deep:
            return report
        return report | {
            "records": self._decoder.records,
            "counts": dict(sorted((seen.counts | self._unknown()).items())),
            "headers": len(self._headers),
            "last_timestamp": _time(seen.last_ns),
            "backwards": seen.backwards,
            "n_gaps": seen.n_gaps,
            "gaps": [
                {
                    "start": format_time(begin),
                    "end": format_time(end),
                    "duration": format_duration(end - begin),
                }
                for begin, end in seen.gaps
            ],
        }


def _mappings(headers: Iterable[dbn.Metadata]) -> list[dict[str, str | None]]:
    """Return the mappings of headers, each once."""
    found = {
        (name, interval["start_date"], interval["end_date"], interval["symbol"])
        for metadata in headers
        for name, intervals in metadata.mappings.items()
        for interval in intervals
    }
    return [
        {"name": name, "start": start.isoformat(), "end": end.isoformat(), "symbol": symbol}
        for name, start, end, symbol in sorted(found)
    ]


def _schema_of(rtype: int, header_schema: str | None) -> str:
    try:
        name = str(dbn.RType.from_int(rtype))
    except (dbn.DBNError, ValueError):
        return f"rtype-{rtype}"
    if name == "mbp-0":
        return "trades"
    if name == "mbp-1" and header_schema == "tbbo":
        return "tbbo"
    return "definition" if name == "instrument-def" else name


def _time(ts_ns: int | None) -> str | None:
    return (format_time(ts_ns) or None) if ts_ns else None
