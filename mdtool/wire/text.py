"""Records as CSV and JSON, byte for byte as Databento's own encoder writes them.

Symbols are the labels of the batches' instruments: databento_dbn, which looks names up by id and
date, could not tell a bar of yesterday's instrument from one of today's.
"""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Final

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from mdtool.core.dtypes import MBP1, MBP10, RTYPE_MBO, RTYPE_OHLCV, RTYPE_OHLCV_1S
from mdtool.core.instruments import Batch
from mdtool.core.records import Records
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
_CSV_QUOTED: Final = re.compile(r'[,"\r\n]')


class JsonEncoder:
    """Records as one JSON object a line, 64-bit integers quoted.

    Parameters
    ----------
    maps_symbols : bool
        Whether each object ends with `symbol`, null where its instrument has no name.
    is_pretty : bool
        Whether prices become decimals and times ISO-8601.
    """

    def __init__(self, maps_symbols: bool = False, is_pretty: bool = False) -> None:
        self._bulk = _Bulk(True, maps_symbols, is_pretty)
        # Which schema is named makes no difference to JSON: all are written.
        self._transcoder = _Transcoder(_JSON, SCHEMAS[RTYPE_MBO], is_pretty)
        self._symbols = SymbolEndings(True) if maps_symbols else None

    def encode(self, batch: Batch) -> bytes:
        """Return the lines of records of any one rtype."""
        if text := self._bulk.encode(batch):
            return text
        text = self._transcoder.encode(batch.records)
        return text if self._symbols is None else self._symbols.append_to(text, batch)


class CsvEncoder:
    """Records as rows of CSV.

    Parameters
    ----------
    maps_symbols : bool
        Whether the last column is `symbol`, empty where the instrument has no name.
    is_pretty : bool
        Whether prices become decimals and times ISO-8601.
    """

    def __init__(self, maps_symbols: bool = False, is_pretty: bool = False) -> None:
        self._maps_symbols = maps_symbols
        self._is_pretty = is_pretty
        self._bulk = _Bulk(False, maps_symbols, is_pretty)
        self._symbols = SymbolEndings(False) if maps_symbols else None
        self._transcoders: dict[int, _Transcoder] = {}

    def header(self, rtype: int) -> bytes:
        """Return the line that names the columns of an rtype that has a schema."""
        schema = SCHEMAS[RTYPE_OHLCV_1S if rtype == RTYPE_OHLCV else rtype]
        text = io.BytesIO()
        transcoder = dbn.Transcoder(text, _CSV, _PLAIN, map_symbols=self._maps_symbols)
        transcoder.write(encode_metadata(make_metadata("", schema, 0)))
        transcoder.flush()
        return text.getvalue()

    def encode(self, batch: Batch) -> bytes:
        """Return the rows of records of one rtype that has a schema, without a header.

        Bars of a cadence without a schema of its own are written too: databento_dbn leaves them
        out of CSV, so they pass through it as bars of a second.
        """
        if text := self._bulk.encode(batch):
            return text
        rtype = batch.rtype
        if rtype == RTYPE_OHLCV:
            records = batch.records.copy()
            records["rtype"] = RTYPE_OHLCV_1S
            text = _STAND_IN.sub(_IN_ITS_PLACE, self._rows(RTYPE_OHLCV_1S, records))
        else:
            text = self._rows(rtype, batch.records)
        return text if self._symbols is None else self._symbols.append_to(text, batch)

    def _rows(self, rtype: int, records: Records) -> bytes:
        if rtype not in self._transcoders:
            self._transcoders[rtype] = _Transcoder(_CSV, SCHEMAS[rtype], self._is_pretty)
        return self._transcoders[rtype].encode(records)


class SymbolEndings:
    """How lines end that carry a symbol: a text for each instrument.

    Parameters
    ----------
    is_json : bool
        JSON, else CSV.
    """

    def __init__(self, is_json: bool) -> None:
        self._is_json = is_json
        self._ending = b"}\n" if is_json else b"\n"
        self._labels: npt.NDArray[np.object_] | None = None
        self._endings = np.empty(0, np.object_)

    def of(self, labels: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        """Return the ending of each label: of an object without its closing brace, of a row."""
        if labels is not self._labels:
            self._labels = labels
            self._endings = np.empty(len(labels), np.object_)
            self._endings[:] = [self._text(label) + self._ending for label in labels]
        return self._endings

    def append_to(self, text: bytes, batch: Batch) -> bytes:
        """Return the lines of records with their symbols."""
        instrument = batch.instrument
        endings = self.of(batch.instruments.labels)
        if (instrument == instrument[0]).all():
            return text.replace(self._ending, endings[instrument[0]])
        pieces: list[bytes] = [b""] * (2 * len(batch))
        pieces[::2] = text.split(self._ending)[:-1]
        pieces[1::2] = endings[instrument].tolist()
        return b"".join(pieces)

    def _text(self, label: str | None) -> bytes:
        if self._is_json:
            return f',"symbol":{json.dumps(label, ensure_ascii=False)}'.encode()
        text = label or ""
        if _CSV_QUOTED.search(text):
            text = '"' + text.replace('"', '""') + '"'
        return f",{text}".encode()


class _Bulk:
    """The kernel for depth records, once they have proved to be so many that loading it pays."""

    def __init__(self, is_json: bool, maps_symbols: bool, is_pretty: bool) -> None:
        self._is_json = is_json
        self._maps_symbols = maps_symbols
        self._is_pretty = is_pretty
        self._seen = 0
        self._text: MbpText | None = None

    def encode(self, batch: Batch) -> bytes:
        """Return the text of records, none where they are databento_dbn's to encode."""
        if self._is_pretty or batch.records.dtype not in (MBP1, MBP10):
            return b""
        self._seen += len(batch)
        if self._seen < KERNEL_FROM_RECORDS:
            return b""
        if self._text is None:
            from mdtool.wire.mbp_text import MbpText

            endings = SymbolEndings(self._is_json) if self._maps_symbols else None
            self._text = MbpText(self._is_json, endings)
        return self._text.encode(batch) or b""


class _Transcoder:
    """databento_dbn's encoder of bare records."""

    def __init__(self, encoding: dbn.Encoding, schema: str, is_pretty: bool) -> None:
        self._has_header = encoding == _CSV
        self._text = io.BytesIO()
        self._transcoder = dbn.Transcoder(
            self._text,
            encoding,
            _PLAIN,
            pretty_px=is_pretty,
            pretty_ts=is_pretty,
            map_symbols=False,
            has_metadata=False,
            schema=dbn.Schema(schema),
            input_version=DBN_VERSION,
        )

    def encode(self, records: Records) -> bytes:
        self._transcoder.write(records.tobytes())
        self._transcoder.flush()
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        if self._has_header:
            self._has_header = False
            return text[text.index(b"\n") + 1 :]
        return text
