"""Records as CSV and JSON, byte for byte as Databento's own encoder writes them."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Final

import databento_dbn as dbn

from mdtool.core.dtypes import MBP1, MBP10, RTYPE_MBO, RTYPE_OHLCV, RTYPE_OHLCV_1S
from mdtool.core.records import Records
from mdtool.core.symbology import Symbology
from mdtool.wire.dbn import encode_metadata
from mdtool.wire.dbn_metadata import make_metadata
from mdtool.wire.dbn_records import DBN_VERSION, SCHEMAS

if TYPE_CHECKING:
    from mdtool.wire.mbp_text import MbpText

KERNEL_FROM_RECORDS: Final = 1 << 18
"""About as many depth records as databento_dbn encodes in the time that loading a kernel takes."""

_CSV: Final = dbn.Encoding("csv")
_JSON: Final = dbn.Encoding("json")
_PLAIN: Final = dbn.Compression("none")
_STAND_IN: Final = re.compile(rb"^([^,\n]*),%d," % RTYPE_OHLCV_1S, re.MULTILINE)
_IN_ITS_PLACE: Final = rb"\1,%d," % RTYPE_OHLCV


class JsonEncoder:
    """Records as one JSON object a line, 64-bit integers quoted.

    Parameters
    ----------
    symbology : Symbology, optional
        Where given, each object ends with `symbol`, null where there is none. It may grow.
    is_pretty : bool
        Whether prices become decimals and times ISO-8601.
    """

    def __init__(self, symbology: Symbology | None = None, is_pretty: bool = False) -> None:
        self._bulk = _Bulk(True, symbology, is_pretty)
        # Which schema is named makes no difference to JSON: all come out.
        self._transcoder = _Transcoder(_JSON, SCHEMAS[RTYPE_MBO], symbology, is_pretty)

    def encode(self, records: Records) -> bytes:
        """Return the lines of records of any one rtype."""
        return self._bulk.encode(records) or self._transcoder.encode(records)


class CsvEncoder:
    """Records as rows of CSV.

    Parameters
    ----------
    symbology : Symbology, optional
        Where given, the last column is `symbol`, empty where there is none. It may grow.
    is_pretty : bool
        Whether prices become decimals and times ISO-8601.
    """

    def __init__(self, symbology: Symbology | None = None, is_pretty: bool = False) -> None:
        self._symbology = symbology
        self._is_pretty = is_pretty
        self._bulk = _Bulk(False, symbology, is_pretty)
        self._transcoders: dict[int, _Transcoder] = {}

    def header(self, rtype: int) -> bytes:
        """Return the line that names the columns of an rtype that has a schema."""
        schema = SCHEMAS[RTYPE_OHLCV_1S if rtype == RTYPE_OHLCV else rtype]
        text = io.BytesIO()
        maps_symbols = self._symbology is not None
        transcoder = dbn.Transcoder(text, _CSV, _PLAIN, map_symbols=maps_symbols)
        transcoder.write(encode_metadata(make_metadata("", schema, 0)))
        transcoder.flush()
        return text.getvalue()

    def encode(self, records: Records) -> bytes:
        """Return the rows of records of one rtype that has a schema, without a header.

        Bars of a cadence without a schema of its own come out too: databento_dbn leaves them out
        of CSV, so they pass through it as bars of a second.
        """
        rtype = int(records["rtype"][0])
        if rtype == RTYPE_OHLCV:
            records = records.copy()
            records["rtype"] = RTYPE_OHLCV_1S
            return _STAND_IN.sub(_IN_ITS_PLACE, self._rows(RTYPE_OHLCV_1S, records))
        return self._bulk.encode(records) or self._rows(rtype, records)

    def _rows(self, rtype: int, records: Records) -> bytes:
        if rtype not in self._transcoders:
            self._transcoders[rtype] = _Transcoder(
                _CSV, SCHEMAS[rtype], self._symbology, self._is_pretty
            )
        return self._transcoders[rtype].encode(records)


class _Bulk:
    """The kernel for depth records, once they have proved to be so many that loading it pays."""

    def __init__(self, is_json: bool, symbology: Symbology | None, is_pretty: bool) -> None:
        self._is_json = is_json
        self._symbology = symbology
        self._is_pretty = is_pretty
        self._seen = 0
        self._text: MbpText | None = None

    def encode(self, records: Records) -> bytes:
        """Return the text of records, none where they are databento_dbn's to encode."""
        if self._is_pretty or records.dtype not in (MBP1, MBP10):
            return b""
        self._seen += len(records)
        if self._seen < KERNEL_FROM_RECORDS:
            return b""
        if self._text is None:
            from mdtool.wire.mbp_text import MbpText

            self._text = MbpText(self._is_json, self._symbology)
        return self._text.encode(records) or b""


class _Transcoder:
    """databento_dbn's encoder of bare records, begun anew when the symbology has changed."""

    def __init__(
        self, encoding: dbn.Encoding, schema: str, symbology: Symbology | None, is_pretty: bool
    ) -> None:
        self._encoding = encoding
        self._schema = dbn.Schema(schema)
        self._symbology = symbology
        self._is_pretty = is_pretty
        self._version: int | None = None
        self._text = io.BytesIO()
        self._transcoder: dbn.Transcoder

    def encode(self, records: Records) -> bytes:
        version = self._symbology.version if self._symbology is not None else 0
        is_new = version != self._version
        if is_new:
            self._version = version
            self._begin()
        self._transcoder.write(records.tobytes())
        self._transcoder.flush()
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        if is_new and self._encoding == _CSV:
            return text[text.index(b"\n") + 1 :]
        return text

    def _begin(self) -> None:
        intervals = self._symbology.intervals() if self._symbology is not None else None
        self._transcoder = dbn.Transcoder(
            self._text,
            self._encoding,
            _PLAIN,
            pretty_px=self._is_pretty,
            pretty_ts=self._is_pretty,
            map_symbols=intervals is not None,
            has_metadata=False,
            symbol_interval_map=intervals,
            schema=self._schema,
            input_version=DBN_VERSION,
        )
