"""Records as CSV and JSON, byte for byte as Databento's own encoder writes them.

Few records are databento_dbn's to encode, many a kernel's, which takes a moment to load. Symbols
are the labels of the batches' instruments: databento_dbn, which looks names up by id and date,
could not tell a bar of yesterday's instrument from one of today's.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import databento_dbn as dbn
import numpy as np
import numpy.typing as npt

from mdtool.core.batch import Batch
from mdtool.core.dtypes import RTYPE_MBO, RTYPE_OHLCV, RTYPE_OHLCV_1S
from mdtool.core.instruments import Instruments
from mdtool.core.interleaved import Interleaved
from mdtool.core.records import Records, sent_layout
from mdtool.wire.dbn_records import DBN_VERSION, DTYPES, SCHEMAS, WIDE_TYPES, shown_types

if TYPE_CHECKING:
    from mdtool.wire.record_text import RecordText

KERNEL_FROM_BYTES: Final = 1 << 20
"""Records of about as many bytes does databento_dbn encode in the time that a kernel takes to load.

Nor is a kernel compiled, after an install, for a file so short.
"""

_SLICE_RECORDS: Final = 1 << 14
"""Records that databento_dbn encodes at a time: a few megabytes of text, however long the batch."""

_CSV: Final = dbn.Encoding("csv")
_JSON: Final = dbn.Encoding("json")
_PLAIN: Final = dbn.Compression("none")
_STAND_IN: Final = re.compile(rb"^([^,\n]*),%d," % RTYPE_OHLCV_1S, re.MULTILINE)
_IN_ITS_PLACE: Final = rb"\1,%d," % RTYPE_OHLCV
_CSV_QUOTED: Final = re.compile(r'[,"\r\n]')


def uses_kernel(n_bytes: int) -> bool:
    """Return whether so many bytes of records are worth the kernel."""
    return n_bytes >= KERNEL_FROM_BYTES


class TextEncoder:
    """Records as lines of text.

    Parameters
    ----------
    is_json : bool
        One JSON object a line, 64-bit integers quoted; else rows of CSV.
    maps_symbols : bool
        Whether lines end with `symbol`, null or empty where an instrument has no name.
    is_pretty : bool
        Whether prices become decimals and times ISO-8601.
    has_publishers : bool
        Whether lines end with `publisher`, its name, null or empty where it has none.
    has_ts_out : bool
        Whether `ts_out` follows a record's fields.
    """

    def __init__(
        self,
        is_json: bool,
        maps_symbols: bool = False,
        is_pretty: bool = False,
        has_publishers: bool = False,
        has_ts_out: bool = False,
    ) -> None:
        self._is_json = is_json
        self._has_ts_out = has_ts_out
        self._maps_symbols = maps_symbols
        self._has_publishers = has_publishers
        self._is_pretty = is_pretty
        self._symbols = _Endings(is_json, maps_symbols, has_publishers)
        self._no_symbols = [self._symbols.ending]
        self._transcoders: dict[int, _Transcoder] = {}
        self._encoded_bytes = 0
        self._kernel: RecordText | None = None

    @property
    def _has_names(self) -> bool:
        return self._maps_symbols or self._has_publishers

    def header(self, rtype: int) -> bytes:
        """Return the line of CSV that names the columns of records that have them."""
        if rtype in WIDE_TYPES:
            names = ["symbol"] * self._maps_symbols + ["publisher"] * self._has_publishers
            fields = [*WIDE_TYPES[rtype]._ordered_fields, *names]  # noqa: SLF001
            return ",".join(fields).encode() + b"\n"
        schema = SCHEMAS[RTYPE_OHLCV_1S if rtype == RTYPE_OHLCV else rtype]
        text = io.BytesIO()
        transcoder = dbn.Transcoder(
            text,
            _CSV,
            _PLAIN,
            map_symbols=self._maps_symbols,
            has_metadata=False,
            ts_out=self._has_ts_out,
            schema=dbn.Schema(schema),
            input_version=DBN_VERSION,
        )
        transcoder.flush()
        line = text.getvalue()
        return line[:-1] + b",publisher\n" if self._has_publishers else line

    def encode(self, batch: Batch | Interleaved) -> Iterator[bytes | memoryview]:
        """Yield the lines of records in pieces, each of which is valid until the next one.

        CSV is rows without a header, of records that have a schema. Bars of a cadence without one
        of its own are written too.
        """
        if self._has_ts_out:
            batch = batch.with_ts_out()
        self._encoded_bytes += batch.n_bytes
        if uses_kernel(self._encoded_bytes) or not batch.rtypes.isdisjoint(WIDE_TYPES):
            yield from self._by_kernel(batch)
        elif isinstance(batch, Interleaved):
            yield b"".join(text for run in batch.runs() for text in self._by_databento(run))
        else:
            yield from self._by_databento(batch)

    def _by_databento(self, batch: Batch) -> Iterator[bytes]:
        for start in range(0, len(batch), _SLICE_RECORDS):
            part = batch[start : start + _SLICE_RECORDS]
            text = self._transcoder(batch.rtype).encode(part.records)
            yield self._symbols.append_to(text, part) if self._has_names else text

    def _by_kernel(self, batch: Batch | Interleaved) -> Iterator[memoryview]:
        if self._kernel is None:
            from mdtool.wire.record_text import RecordText

            types = shown_types(self._has_ts_out)
            self._kernel = RecordText(self._is_json, self._is_pretty, types)
        instrument = np.zeros(len(batch), np.int64)
        endings = self._no_symbols
        if self._has_names:
            instrument[:] = batch.instrument
            endings = self._symbols.of(batch.instruments)

        def left(record: int, data: bytes) -> bytes:
            """Return the text of a record that the kernel does not write."""
            rtype = data[1]
            of = sent_layout(DTYPES[rtype]) if self._has_ts_out else DTYPES[rtype]
            text = self._transcoder(rtype).encode(np.frombuffer(data, of))
            return text[: -len(self._symbols.ending)] + endings[int(instrument[record])]

        yield from self._kernel.encode(batch.words, sorted(batch.rtypes), endings, instrument, left)

    def _transcoder(self, rtype: int) -> _Transcoder:
        if rtype not in self._transcoders:
            self._transcoders[rtype] = _Transcoder(
                rtype, self._is_json, self._is_pretty, self._has_ts_out
            )
        return self._transcoders[rtype]


class _Endings:
    """How lines end that carry names: a text for each instrument.

    Parameters
    ----------
    is_json : bool
        JSON, else CSV.
    has_symbols, has_publishers : bool
        Which names.

    Attributes
    ----------
    ending : bytes
        How lines end that carry none.
    """

    def __init__(self, is_json: bool, has_symbols: bool, has_publishers: bool) -> None:
        self._is_json = is_json
        self._has_symbols = has_symbols
        self._has_publishers = has_publishers
        self.ending = b"}\n" if is_json else b"\n"
        self._labels: npt.NDArray[np.object_] | None = None
        self._endings: list[bytes] = []

    def of(self, instruments: Instruments) -> list[bytes]:
        """Return the ending of each one: of an object without its closing brace, of a row."""
        labels = instruments.labels
        if labels is not self._labels:
            self._labels = labels
            columns = {}
            if self._has_symbols:
                columns["symbol"] = labels
            if self._has_publishers:
                columns["publisher"] = instruments.publishers
            self._endings = [
                b"".join(self._text(name, column[at]) for name, column in columns.items())
                + self.ending
                for at in range(len(labels))
            ]
        return self._endings

    def append_to(self, text: bytes, batch: Batch) -> bytes:
        """Return the lines of records with their names."""
        instrument = batch.instrument
        endings = self.of(batch.instruments)
        if (instrument == instrument[0]).all():
            return text.replace(self.ending, endings[instrument[0]])
        pieces: list[bytes] = [b""] * (2 * len(batch))
        pieces[::2] = text.split(self.ending)[:-1]
        pieces[1::2] = [endings[index] for index in instrument.tolist()]
        return b"".join(pieces)

    def _text(self, name: str, value: str | None) -> bytes:
        if self._is_json:
            return f',"{name}":{json.dumps(value, ensure_ascii=False)}'.encode()
        text = value or ""
        if _CSV_QUOTED.search(text):
            text = '"' + text.replace('"', '""') + '"'
        return f",{text}".encode()


class _Transcoder:
    """databento_dbn's encoder of bare records of one rtype.

    It leaves bars of a cadence without a schema out of CSV, so they pass through it as bars of a
    second. Which schema is named makes no difference to JSON: all are written.
    """

    def __init__(self, rtype: int, is_json: bool, is_pretty: bool, has_ts_out: bool) -> None:
        self._is_stand_in = rtype == RTYPE_OHLCV and not is_json
        self._has_header = not is_json
        if self._is_stand_in:
            rtype = RTYPE_OHLCV_1S
        self._text = io.BytesIO()
        self._transcoder = dbn.Transcoder(
            self._text,
            _JSON if is_json else _CSV,
            _PLAIN,
            pretty_px=is_pretty,
            pretty_ts=is_pretty,
            map_symbols=False,
            has_metadata=False,
            ts_out=has_ts_out,
            schema=dbn.Schema(SCHEMAS[RTYPE_MBO if is_json else rtype]),
            input_version=DBN_VERSION,
        )

    def encode(self, records: Records) -> bytes:
        """Return the lines of records."""
        if self._is_stand_in:
            records = records.copy()
            records["rtype"] = RTYPE_OHLCV_1S
        self._transcoder.write(records.tobytes())
        self._transcoder.flush()
        text: bytes = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        if self._has_header:
            self._has_header = False
            text = text[text.index(b"\n") + 1 :]
        return _STAND_IN.sub(_IN_ITS_PLACE, text) if self._is_stand_in else text
