"""The records of a live session as lines of JSON or CSV, in place of DBN.

Source: the vendor's pages on encodings, and databento_dbn, which writes all that has a schema.
"""

from __future__ import annotations

import csv
import io
from typing import Any, Final

import databento_dbn as dbn

from mdtool.core.records import TS_OUT, Records
from mdtool.core.units import UNDEF_TIMESTAMP, format_time
from mdtool.wire.dbn_records import CONTROL_RTYPES, DBN_VERSION, RECORD_TYPES, SCHEMAS

JSON: Final = "json"
CSV: Final = "csv"
_ENCODINGS: Final = {JSON: dbn.Encoding("json"), CSV: dbn.Encoding("csv")}
_ANY: Final = "mbo"
"""A schema: which one is named makes no difference to JSON."""


class LiveText:
    """Records of any type, an object or a row each.

    Rows of CSV follow a line that names their columns, the first time that there are any of their
    type.

    Parameters
    ----------
    encoding : str
        `json` or `csv`.
    has_pretty_px, has_pretty_ts : bool
        Whether prices are decimals, and times ISO 8601.
    has_ts_out : bool
        Whether records end with their `ts_out`.
    """

    def __init__(
        self, encoding: str, *, has_pretty_px: bool, has_pretty_ts: bool, has_ts_out: bool
    ) -> None:
        self._encoding = encoding
        self._has_ts_out = has_ts_out
        self._has_pretty_px = has_pretty_px
        self._has_pretty_ts = has_pretty_ts
        self._text = io.BytesIO()
        self._transcoders: dict[str, Any] = {}
        self._headed: set[int] = set()

    def encode(self, records: Records) -> bytes:
        """Return the lines of records of one rtype, at least one."""
        rtype = int(records["rtype"][0])
        if self._encoding == JSON:
            return self._transcoded(_ANY, records)
        if rtype in CONTROL_RTYPES:
            return self._rows(rtype, records)
        return self._transcoded(SCHEMAS[rtype], records)

    def _transcoded(self, schema: str, records: Records) -> bytes:
        transcoder = self._transcoders.get(schema)
        if transcoder is None:
            transcoder = self._transcoders[schema] = dbn.Transcoder(
                self._text,
                _ENCODINGS[self._encoding],
                dbn.Compression("none"),
                pretty_px=self._has_pretty_px,
                pretty_ts=self._has_pretty_ts,
                map_symbols=False,
                has_metadata=False,
                ts_out=self._has_ts_out,
                schema=dbn.Schema(schema),
                input_version=DBN_VERSION,
            )
        transcoder.write(records.tobytes())
        transcoder.flush()
        text: bytes = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text

    def _rows(self, rtype: int, records: Records) -> bytes:
        """Return rows of what a session says about itself, which has no schema."""
        record_type = RECORD_TYPES[rtype]
        fields = [*record_type._ordered_fields, *[TS_OUT] * self._has_ts_out]  # noqa: SLF001
        times = {TS_OUT, *record_type._timestamp_fields} if self._has_pretty_ts else set()  # noqa: SLF001
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if rtype not in self._headed:
            self._headed.add(rtype)
            writer.writerow(fields)
        columns = [
            map(_time if name in times else _shown, records[name].tolist()) for name in fields
        ]
        writer.writerows(zip(*columns, strict=True))
        return text.getvalue().encode()


def _time(ts_ns: int) -> str:
    return "" if ts_ns == UNDEF_TIMESTAMP else format_time(ts_ns)


def _shown(value: object) -> object:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
