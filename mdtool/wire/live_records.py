"""The records with which a live gateway speaks of its session, and the layouts that clients expect.

Every text and code that a gateway sends is in this file.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import databento_dbn as dbn
import numpy as np

from mdtool.core.dtypes import RTYPE_ERROR, RTYPE_STATISTICS, record_length
from mdtool.core.records import Records
from mdtool.core.units import UNDEF_PRICE, UNDEF_TIMESTAMP
from mdtool.wire.dbn_records import DBN_VERSION, DTYPES, RTYPE_DEFINITION

VERSIONS: Final = (2, DBN_VERSION)
"""The DBN versions that are written."""
_INVALID: Final = "Invalid subscription: "
MAX_ERROR_CHARS: Final = 301
MAX_SYSTEM_CHARS: Final = 302

_STATISTICS_V2: Final = np.dtype(dbn.StatMsgV1._dtypes)  # noqa: SLF001 - it has no public name
_DEFINITION_V2: Final = np.dtype(dbn.InstrumentDefMsgV2._dtypes)  # noqa: SLF001
_ERROR_V1: Final = np.dtype(dbn.ErrorMsgV1._dtypes)  # noqa: SLF001
_OLDER: Final = {
    1: {RTYPE_ERROR: _ERROR_V1},
    2: {RTYPE_STATISTICS: _STATISTICS_V2, RTYPE_DEFINITION: _DEFINITION_V2},
    DBN_VERSION: {},
}
"""Records of other layouts, of version 1 what a session of a file says of itself alone."""
_NARROWED: Final = {
    RTYPE_STATISTICS: {"quantity": 2**31 - 1},
    RTYPE_DEFINITION: {"raw_instrument_id": 0},
}
"""Fields that were narrower before, and what they hold where a value does not fit."""


class Notice(NamedTuple):
    """A system record: its code and its text."""

    code: int
    text: str


class Failure(NamedTuple):
    """An error record: its code, its text, and whether the session ends with it."""

    code: int
    text: str
    is_fatal: bool


def heartbeat() -> Notice:
    """Say that nothing else was sent within the interval."""
    return Notice(dbn.SystemCode.HEARTBEAT, "Heartbeat")


def subscribed(number: int, schema: str) -> Notice:
    """Acknowledge a subscription."""
    text = f"Subscription request {number} for {schema} data succeeded"
    return Notice(dbn.SystemCode.SUBSCRIPTION_ACK, text)


def slow_reading(schema: str) -> Notice:
    """Warn a client that does not read as fast as records come."""
    text = f"Warning: slow reading, not keeping pace with {schema} data"
    return Notice(dbn.SystemCode.SLOW_READER_WARNING, text)


def replayed(schema: str) -> Notice:
    """Say that a replay has reached the live records."""
    return Notice(dbn.SystemCode.REPLAY_COMPLETED, f"Finished {schema} replay")


def interval_ended(schema: str) -> Notice:
    """Say that all records of an interval were sent; `ts_event` is its end."""
    return Notice(dbn.SystemCode.END_OF_INTERVAL, f"End of interval for {schema}")


def unsubscribed(schema: str) -> Notice:
    """Acknowledge the end of a subscription."""
    return Notice(dbn.SystemCode.UNSUBSCRIBE_ACK, f"Unsubscribed from {schema} data")


def unresolved(symbol: str) -> Failure:
    """Say that a symbol has no instrument."""
    text = f"Failed to resolve symbol: {symbol}"
    return Failure(dbn.ErrorCode.SYMBOL_RESOLUTION_FAILED, text, is_fatal=False)


def not_subscribed(symbol: str, schema: str) -> Failure:
    """Say that a symbol whose subscription is to end has none."""
    text = f"Not subscribed to {symbol} for {schema} data"
    return Failure(dbn.ErrorCode.INVALID_SUBSCRIPTION, text, is_fatal=False)


def invalid(reason: str) -> Failure:
    """End the session for a request that is not valid."""
    return Failure(dbn.ErrorCode.INVALID_SUBSCRIPTION, f"{_INVALID}{reason}", is_fatal=True)


def deactivated(reason: str) -> Failure:
    """End the session of a client whose key is not valid any more."""
    return Failure(dbn.ErrorCode.API_KEY_DEACTIVATED, reason, is_fatal=True)


def aged_out() -> Failure:
    """End the session for a replay of records that cannot be read any more."""
    text = f"{_INVALID}start is too old, before the latest records of this stream"
    return Failure(dbn.ErrorCode.REPLAY_DATA_AGED_OUT, text, is_fatal=True)


def skipped(records: int) -> Failure:
    """Say how many records a slow client missed."""
    text = f"Skipped {records} records after slow reading"
    code = dbn.ErrorCode.SKIPPED_RECORDS_AFTER_SLOW_READING
    return Failure(code, text, is_fatal=False)


def failed(reason: str) -> Failure:
    """End the session of a gateway that cannot continue."""
    return Failure(dbn.ErrorCode.INTERNAL_ERROR, reason, is_fatal=True)


def metadata(dataset: str, start_ns: int, *, has_ts_out: bool, version: int) -> bytes:
    """Return the header of a session's stream, which names no schema, symbols or end.

    Parameters
    ----------
    dataset : str
        At most 16 ASCII characters.
    start_ns : int
    has_ts_out : bool
    version : int
        One of `VERSIONS`.
    """
    header = dbn.Metadata(
        dataset=dataset,
        start=start_ns,
        stype_in=None,
        stype_out=dbn.SType("instrument_id"),
        schema=None,
        symbols=[],
        partial=[],
        not_found=[],
        mappings=[],
        ts_out=has_ts_out,
        version=version,
    )
    return header.encode()


def encode_mapping(
    instrument_id: int, stype_in: str, symbol_in: str, symbol_out: str, ts_ns: int
) -> bytes:
    """Return the record that says what a symbol stands for from now on.

    Parameters
    ----------
    instrument_id : int
    stype_in, symbol_in : str
        As they were subscribed.
    symbol_out : str
        The raw symbol.
    ts_ns : int
        Of the record.
    """
    return bytes(
        dbn.SymbolMappingMsg(
            publisher_id=0,
            instrument_id=instrument_id,
            ts_event=ts_ns,
            stype_in=dbn.SType(stype_in),
            stype_in_symbol=symbol_in,
            stype_out=dbn.SType("raw_symbol"),
            stype_out_symbol=symbol_out,
            start_ts=UNDEF_TIMESTAMP,
            end_ts=UNDEF_TIMESTAMP,
        )
    )


def encode_notice(notice: Notice, ts_ns: int) -> bytes:
    """Return a system record."""
    text = notice.text[:MAX_SYSTEM_CHARS]
    return bytes(dbn.SystemMsg(ts_event=ts_ns, msg=text, code=dbn.SystemCode(notice.code)))


def encode_failure(failure: Failure, ts_ns: int, *, is_last: bool = True) -> bytes:
    """Return an error record, the last one of those that are sent together or not."""
    text = failure.text.encode("ascii", "replace").decode()[:MAX_ERROR_CHARS]
    data = bytes(dbn.ErrorMsg(ts_event=ts_ns, err=text, is_last=is_last))
    record = np.frombuffer(data, DTYPES[RTYPE_ERROR]).copy()
    record["code"] = failure.code  # perhaps one that databento_dbn does not know
    return record.tobytes()


def in_version(records: Records, version: int) -> Records:
    """Return records in the layout of a DBN version: themselves where that is the same.

    What only version 3 has is left out: the legs of definitions. A quantity of statistics, or a
    raw id of definitions, that does not fit is undefined.
    """
    rtype = int(records["rtype"][0])
    if rtype not in _OLDER[version]:
        return records
    older = np.zeros(len(records), _OLDER[version][rtype])
    if rtype == RTYPE_DEFINITION:
        older["trading_reference_price"] = UNDEF_PRICE
    for name in set(older.dtype.names or ()) & set(records.dtype.names or ()):
        if older.dtype[name].kind == "S":  # a text ends with a NUL, however short its field
            older[name] = records[name].astype(f"S{older.dtype[name].itemsize - 1}")
        else:
            older[name] = records[name]
    for name, undefined in _NARROWED.get(rtype, {}).items():
        older[name][records[name] != older[name]] = undefined
    older["length"] = record_length(older.dtype)
    return older
