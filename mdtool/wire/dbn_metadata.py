"""DBN metadata: created, changed, and united for merged streams."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import databento_dbn as dbn

from mdtool.core.errors import InputError
from mdtool.core.symbology import Interval, dated_mappings
from mdtool.core.units import NS_PER_DAY, UNDEF_TIMESTAMP
from mdtool.wire.dbn_records import DBN_VERSION

MIXED_DATASET: Final = "MIXED"
"""The dataset of a stream that is merged from several."""

NO_START: Final = UNDEF_TIMESTAMP
"""The start in a header of which none is known."""

_RAW_SYMBOL: Final = dbn.SType("raw_symbol")
_INSTRUMENT_ID: Final = dbn.SType("instrument_id")
_EPOCH: Final = dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class _MappingInterval:
    start_date: dt.date
    end_date: dt.date
    symbol: str


@dataclass(frozen=True, slots=True)
class _SymbolMapping:
    raw_symbol: str
    intervals: Sequence[_MappingInterval]


def make_metadata(
    dataset: str,
    schema: str | None,
    start_ns: int,
    end_ns: int | None = None,
    instruments: Mapping[int, str] | None = None,
) -> dbn.Metadata:
    """Return the metadata of a stream whose instruments keep their symbols throughout.

    Parameters
    ----------
    dataset : str
        At most 16 ASCII characters.
    schema : str or None
        A schema's name, None for a stream of several.
    start_ns, end_ns : int
        Nanoseconds since the epoch; no end means that none is known, and the mappings then hold
        for a year.
    instruments : mapping, optional
        Symbols by instrument id.
    """
    first = _date(start_ns)
    last = _date(end_ns - 1) if end_ns else first + dt.timedelta(days=365)
    end = last + dt.timedelta(days=1)
    named = [(name, first, end, str(number)) for number, name in (instruments or {}).items()]
    return dbn.Metadata(
        dataset=dataset,
        start=start_ns,
        end=end_ns,
        stype_in=_RAW_SYMBOL,
        stype_out=_INSTRUMENT_ID,
        schema=_schema(schema),
        symbols=sorted({name for name, *_ in named}),
        mappings=_mappings(named),
        version=DBN_VERSION,
    )


def with_schema(metadata: dbn.Metadata, schema: str | None) -> dbn.Metadata:
    """Return the metadata of the records of `schema` in the stream given."""
    return _rebuilt(metadata, schema=_schema(schema))


def derived(metadata: dbn.Metadata, schema: str | None) -> dbn.Metadata:
    """Return the metadata of a stream of `schema` that is made of the one given.

    Its records were never sent: they have no `ts_out`.
    """
    return _rebuilt(metadata, schema=_schema(schema), ts_out=False)


def is_live(metadata: dbn.Metadata) -> bool:
    """Return whether a stream is of a live session, whose header says nothing of its records."""
    unset = (metadata.stype_in, metadata.end)
    return all(each is None for each in unset) and not metadata.mappings


def without_ts_out(metadata: dbn.Metadata) -> dbn.Metadata:
    """Return the metadata of the same stream without the time at which each record was sent."""
    return _rebuilt(metadata, ts_out=False) if metadata.ts_out else metadata


def shown(metadata: dbn.Metadata, is_shown: Callable[[str], bool]) -> dbn.Metadata:
    """Return the metadata of a part of the stream, without the names of everything else.

    Parameters
    ----------
    metadata : databento_dbn.Metadata
    is_shown : callable
        Returns whether the part has the records of a symbol.
    """
    is_to_ids = metadata.stype_out == _INSTRUMENT_ID
    named = (each for each in _named(metadata) if is_shown(each[0] if is_to_ids else each[3]))
    return _rebuilt(
        metadata,
        symbols=list(filter(is_shown, metadata.symbols)),
        partial=list(filter(is_shown, metadata.partial)),
        not_found=[],
        mappings=_mappings(named),
    )


def unite(sources: Sequence[tuple[str, dbn.Metadata]]) -> dbn.Metadata:
    """Return the metadata of several streams merged into one.

    Parameters
    ----------
    sources : sequence of (str, Metadata)
        Streams by name, at least one. Where they differ, the schema of the whole is None, its
        dataset `MIXED_DATASET`, its symbology from raw symbols to ids, and it has `ts_out`.

    Raises
    ------
    InputError
        When two streams of different datasets give one instrument id two symbols on one day, so
        that records of the merged stream would be ambiguous.
    """
    all_metadata = [metadata for _, metadata in sources]
    if len(all_metadata) == 1:
        return all_metadata[0]
    datasets = {metadata.dataset for metadata in all_metadata}
    if len(datasets) > 1:
        _refuse_clashes(sources)
    schemas = {metadata.schema and str(metadata.schema) for metadata in all_metadata}
    ends = [metadata.end for metadata in all_metadata]
    stypes = {(str(each.stype_in), str(each.stype_out)) for each in all_metadata}
    starts = [metadata.start for metadata in all_metadata if metadata.start != NO_START]
    agrees = len(stypes) == 1
    named = chain.from_iterable(map(_named if agrees else _named_ids, all_metadata))
    return dbn.Metadata(
        dataset=datasets.pop() if len(datasets) == 1 else MIXED_DATASET,
        start=min(starts, default=NO_START),
        end=max(ends) if all(ends) else None,
        stype_in=all_metadata[0].stype_in if agrees else _RAW_SYMBOL,
        stype_out=all_metadata[0].stype_out if agrees else _INSTRUMENT_ID,
        schema=_schema(schemas.pop() if len(schemas) == 1 else None),
        symbols=_united(metadata.symbols for metadata in all_metadata),
        partial=_united(metadata.partial for metadata in all_metadata),
        not_found=_united(metadata.not_found for metadata in all_metadata),
        mappings=_mappings(named),
        ts_out=any(metadata.ts_out for metadata in all_metadata),
        version=DBN_VERSION,
    )


def _rebuilt(metadata: dbn.Metadata, **changes: Any) -> dbn.Metadata:
    fields: dict[str, Any] = {
        "dataset": metadata.dataset,
        "start": metadata.start,
        "end": metadata.end,
        "limit": metadata.limit,
        "stype_in": metadata.stype_in,
        "stype_out": metadata.stype_out,
        "schema": metadata.schema,
        "symbols": metadata.symbols,
        "partial": metadata.partial,
        "not_found": metadata.not_found,
        "mappings": _mappings(_named(metadata)),
        "ts_out": metadata.ts_out,
        "version": DBN_VERSION,
    }
    return dbn.Metadata(**(fields | changes))


_Named = tuple[str, dt.date, dt.date, str]
"""A mapping: the name, the first day, the day after the last, and what it maps to."""


def _mappings(named: Iterable[_Named]) -> list[Any]:
    """Return mappings, each once, in order of name and date: a dict has them in any order."""
    by_name: dict[str, set[tuple[dt.date, dt.date, str]]] = {}
    for name, first, end, symbol in named:
        by_name.setdefault(name, set()).add((first, end, symbol))
    return [
        _SymbolMapping(name, [_MappingInterval(*interval) for interval in sorted(intervals)])
        for name, intervals in sorted(by_name.items())
    ]


def _named(metadata: dbn.Metadata) -> Iterable[_Named]:
    for name, intervals in metadata.mappings.items():
        for interval in intervals:
            yield name, interval["start_date"], interval["end_date"], interval["symbol"]


def _named_ids(metadata: dbn.Metadata) -> Iterable[_Named]:
    for interval in dated_mappings(metadata):
        first, end = interval.first_date, interval.end_date
        yield interval.name, first, end, str(interval.instrument_id)


def _refuse_clashes(sources: Sequence[tuple[str, dbn.Metadata]]) -> None:
    """Refuse streams of different datasets that name an id differently on one day."""
    seen: dict[int, list[tuple[Interval, str, str]]] = {}
    for name, metadata in sources:
        for interval in dated_mappings(metadata):
            known = seen.setdefault(interval.instrument_id, [])
            for other, dataset, other_name in known:
                differs = dataset != metadata.dataset and interval.name != other.name
                if differs and interval.overlaps(other):
                    raise InputError(
                        f"{other_name} and {name} cannot be merged: on "
                        f"{max(interval.first_date, other.first_date)} instrument "
                        f"{interval.instrument_id} is {other.name} in one, {interval.name} in the"
                        " other"
                    )
            known.append((interval, metadata.dataset, name))


def _united(lists: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in lists for name in names))


def _schema(name: str | None) -> dbn.Schema | None:
    return dbn.Schema(name) if name is not None else None


def _date(ts_ns: int) -> dt.date:
    return _EPOCH + dt.timedelta(days=ts_ns // NS_PER_DAY)
