"""DBN streams decoded as their bytes arrive, in pieces of any size, and encoded."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

import databento_dbn as dbn
import numpy as np

from mdtool.core.errors import CorruptStreamError, InputError
from mdtool.core.records import Records, Times
from mdtool.wire.compression import MAGIC_BYTES, Unwrapper, compression_of
from mdtool.wire.dbn_records import DBN_VERSION, DTYPES, OLDER_BYTES

_MAGIC: Final = b"DBN"
_PREFIX_BYTES: Final = 8
"""Magic, version, and the length of the metadata that follows as uint32."""
_HEAD_BYTES: Final = 16
"""What every record begins with: length, rtype, publisher, instrument and time."""
_TS_OUT_BYTES: Final = 8
_ZIP: Final = b"PK"
_SURELY_RECORDS_BYTES: Final = 1 << 16
"""Records of unknown rtypes that follow each other for so long are not garbage."""
_FIRST_LOOK: Final = 64
"""Records compared at first when a run's length is sought; each further look doubles it."""


class Run(NamedTuple):
    """Records of one rtype that follow each other in a stream.

    Attributes
    ----------
    records : structured array, shape (n,), read-only
        Laid out as `DTYPES` says: records of older versions are upgraded, `ts_out` is apart.
    offset : int
        The byte of the decompressed stream at which the first one begins.
    before : int
        How many whole records come before it.
    record_bytes : int
        How many bytes each takes in the stream.
    metadata : databento_dbn.Metadata
        The latest header before them.
    ts_out : uint64 array, shape (n,), or None
        When the gateway sent each, where that header says that they have it.
    """

    records: Records
    offset: int
    before: int
    record_bytes: int
    metadata: dbn.Metadata
    ts_out: Times | None


class DbnDecoder:
    """Turns the bytes of one DBN stream, v1 to v3, compressed or not, into arrays of records.

    A further header, of a file that was appended to another one, is accepted where it has the
    dataset, the schema and the kinds of symbols of the first. Records of unknown rtypes are
    skipped.

    Parameters
    ----------
    source : str
        What errors call the stream: a file's name, `stdin`, an address.

    Attributes
    ----------
    metadata : databento_dbn.Metadata or None
        The first header, None until it has come as a whole. Says version 3 whatever the stream
        has, like the records that are returned.
    records : int
        How many whole records have been decoded.
    offset : int
        The byte, counted in the decompressed stream, up to which it has been decoded.
    unknown : Counter of int
        How many records were skipped of each unknown rtype.
    """

    def __init__(self, source: str = "stream") -> None:
        self.source = source
        self.metadata: dbn.Metadata | None = None
        self.records = 0
        self.offset = 0
        self.unknown: Counter[int] = Counter()
        self._pending = b""
        self._unwrapper: Unwrapper | None = None
        self._is_begun = False
        self._latest: dbn.Metadata
        self._version = DBN_VERSION
        self._ts_out_bytes = 0
        self._error: CorruptStreamError | None = None

    @property
    def compression(self) -> str | None:
        """How the stream is compressed, None if it is not or has not begun."""
        return None if self._unwrapper is None else self._unwrapper.name

    @property
    def is_compressed(self) -> bool:
        """Whether the stream is compressed."""
        return self._unwrapper is not None

    @property
    def pending_bytes(self) -> int:
        """How many bytes wait for the rest of their record."""
        return len(self._pending)

    @property
    def has_more(self) -> bool:
        """Whether `decode` has more to return without further bytes."""
        is_held = self._unwrapper is not None and self._unwrapper.has_more
        return self._error is None and is_held

    @property
    def version(self) -> int:
        """The DBN version of the latest header, once `metadata` is known."""
        return self._version

    def feed(self, data: bytes | bytearray | memoryview) -> list[Records]:
        """Return the records that `data` completes.

        Parameters
        ----------
        data : bytes-like
            The next bytes of the stream. Bytes objects are not copied and back the arrays;
            anything else is.

        Returns
        -------
        list of structured arrays, read-only
            Runs of records of one rtype, in the order of the stream, as `Run.records`.

        Raises
        ------
        InputError
            When the stream is not DBN, or of an unknown version.
        CorruptStreamError
            When it contains garbage, or another file. All records before were returned: where some
            come from the same call, that call returns them and the next one raises.
        """
        runs = self.decode(data)
        while self.has_more:
            runs += self.decode(b"")
        return [run.records for run in runs]

    def decode(self, data: bytes | bytearray | memoryview) -> list[Run]:
        """Return records that `data` completes: as `feed`, but in bounded memory.

        Of compressed data that stands for much it returns a part, and the rest without further
        bytes, as long as `has_more` says.
        """
        self._raise_if_corrupt()
        runs: list[Run] = []
        if not self._is_begun:
            self._pending += bytes(data)
            if len(self._pending) < MAGIC_BYTES:
                return runs
            self._begin()
        else:
            self._pending = self._unwrap(bytes(data))
        if self._has_metadata():
            consumed = self._decode_records(self._pending, runs)
            self._pending = self._pending[consumed:]
            self.offset += consumed
        if self._unwrapper is not None and self._unwrapper.error is not None:
            self._error = self._error or self._corrupt(f"{self._unwrapper.error}")
        if not runs:
            self._raise_if_corrupt()
        return runs

    def jump(self, offset: int, records: int) -> None:
        """Continue at another record: the next bytes do not follow the last ones.

        Parameters
        ----------
        offset, records : int
            As the attributes, of that place. The stream must not be compressed, and its metadata
            must have come.
        """
        self._pending = b""
        self._error = None
        self.offset = offset
        self.records = records

    def finish(self) -> None:
        """Check that the stream may end here.

        Raises
        ------
        InputError
            When the stream was empty, or too short to be DBN.
        CorruptStreamError
            When it ends inside its metadata, a record or a compressed frame.
        """
        self._raise_if_corrupt()
        if not self._is_begun:
            if not self._pending:
                raise InputError(f"{self.source}: is empty")
            raise self._no_dbn(self._pending)
        if self._unwrapper is not None and not self._pending and self.metadata is None:
            self._finish_compression(self._unwrapper)
            raise InputError(f"{self.source}: is empty once it is decompressed")
        if self.metadata is None:
            raise self._corrupt("ends inside its metadata")
        if self._pending and not self._skip_last(self._pending):
            is_header = self._pending.startswith(_MAGIC)
            part = "the header of another file" if is_header else "a record"
            raise self._corrupt(f"ends inside {part} that begins")
        if self._unwrapper is not None:
            self._finish_compression(self._unwrapper)

    def _finish_compression(self, unwrapper: Unwrapper) -> None:
        try:
            unwrapper.finish()
        except InputError as error:
            raise self._corrupt(f"{error}") from error

    def _begin(self) -> None:
        self._is_begun = True
        data, self._pending = self._pending, b""
        if compression_of(data) is not None:
            self._unwrapper = Unwrapper()
        self._pending = self._unwrap(data)

    def _unwrap(self, data: bytes) -> bytes:
        """Return what was pending and what `data` adds to it, decompressed."""
        if self._unwrapper is not None:
            return self._unwrapper.feed(data, self._pending)
        return self._pending + data if self._pending else data

    def _has_metadata(self) -> bool:
        """Take the header off the pending bytes, once it is there as a whole."""
        if self.metadata is not None:
            return True
        head = self._pending[:_PREFIX_BYTES]
        if head[: len(_MAGIC)] != _MAGIC[: len(head)]:
            raise self._no_dbn(head)
        if len(head) < _PREFIX_BYTES:
            return False
        if head[3] not in OLDER_BYTES:
            raise InputError(
                f"{self.source}: is DBN version {head[3]}; 1 to {DBN_VERSION} are known"
            )
        length = _header_bytes(self._pending)
        if len(self._pending) < length:
            return False
        self.metadata = self._read_header(self._pending[:length])
        self._pending = self._pending[length:]
        self.offset = length
        return True

    def _read_header(self, header: bytes) -> dbn.Metadata:
        try:
            metadata = dbn.Metadata.decode(header)
        except (dbn.DBNError, ValueError) as error:
            raise self._corrupt(f"has damaged metadata ({error})") from error
        self._version = header[3]
        self._ts_out_bytes = _TS_OUT_BYTES if metadata.ts_out else 0
        self._latest = metadata
        return metadata

    def _decode_records(self, data: bytes, runs: list[Run]) -> int:
        """Append to `runs` the whole records of `data`; return how many bytes they are."""
        offset = 0
        while len(data) - offset >= 2:
            rtype = data[offset + 1]
            n_bytes = data[offset] * 4
            if not self._is_record(rtype, n_bytes):
                after = self._pass_over(data, offset)
                if after is None:
                    break
                offset = after
                continue
            n_records = _run_length(data, offset, n_bytes, (len(data) - offset) // n_bytes)
            if n_records == 0:
                break
            records, ts_out = self._read_run(data, offset, n_records, rtype)
            at = self.offset + offset
            runs.append(Run(records, at, self.records, n_bytes, self._latest, ts_out))
            self.records += n_records
            offset += n_records * n_bytes
        return offset

    def _is_record(self, rtype: int, n_bytes: int) -> bool:
        """Return whether a record of a known rtype may have so many bytes."""
        if rtype not in DTYPES:
            return False
        older = OLDER_BYTES[self._version].get(rtype)
        return n_bytes == (older or DTYPES[rtype].itemsize) + self._ts_out_bytes

    def _pass_over(self, data: bytes, offset: int) -> int | None:
        """Return where the next record begins after what is not a known one.

        None where that takes more bytes, or where the stream cannot be read further.
        """
        head = data[offset : offset + _PREFIX_BYTES]
        if head[:3] == _MAGIC[: len(head)]:
            return self._pass_header(data, offset)
        if len(head) < MAGIC_BYTES:
            return None
        if (compression := compression_of(head)) is not None:
            self._end(f"another file, compressed with {compression}, begins", offset)
            return None
        return self._pass_unknown(data, offset)

    def _pass_header(self, data: bytes, offset: int) -> int | None:
        """Take the header of a file that was appended."""
        head = data[offset : offset + _PREFIX_BYTES]
        if len(head) < _PREFIX_BYTES:
            return None
        if head[3] not in OLDER_BYTES:
            self._end(f"another file, of DBN version {head[3]}, begins", offset)
            return None
        end = offset + _header_bytes(head)
        if len(data) < end:
            return None
        before = self._latest
        try:
            after = self._read_header(data[offset:end])
        except CorruptStreamError:
            self._end("another file with damaged metadata begins", offset)
            return None
        if _kind(before) != _kind(after):
            what = f"another file ({_text(after)}, not {_text(before)}) begins"
            self._end(what, offset)
            return None
        return end

    def _pass_unknown(self, data: bytes, offset: int) -> int | None:
        """Skip records of unknown rtypes, if what follows shows that they are no garbage."""
        end = offset
        while end - offset < _SURELY_RECORDS_BYTES:
            if len(data) - end < 2:
                return None
            n_bytes, rtype = data[end] * 4, data[end + 1]
            if self._is_record(rtype, n_bytes) or data[end : end + 3] == _MAGIC:
                break
            if rtype in DTYPES or n_bytes < _HEAD_BYTES:
                what = f"contains garbage (rtype {data[offset + 1]}, {data[offset] * 4} bytes)"
                self._error = self._corrupt(what, offset)
                return None
            end += n_bytes
        if end > len(data):
            return None
        self._count_unknown(data[offset:end])
        return end

    def _skip_last(self, data: bytes) -> bool:
        """Skip unknown records with which a stream ends; return whether it does so."""
        end = 0
        while len(data) - end >= 2 and data[end] * 4 >= _HEAD_BYTES and data[end + 1] not in DTYPES:
            end += data[end] * 4
        if end != len(data):
            return False
        self._count_unknown(data)
        self.offset += end
        self._pending = b""
        return True

    def _count_unknown(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            self.unknown[data[at + 1]] += 1
            at += data[at] * 4

    def _end(self, what: str, offset: int) -> None:
        self._error = self._corrupt(what, offset, "give each file by itself")

    def _read_run(
        self, data: bytes, offset: int, n_records: int, rtype: int
    ) -> tuple[Records, Times | None]:
        dtype = DTYPES[rtype]
        older = OLDER_BYTES[self._version].get(rtype)
        if not self._ts_out_bytes and older is None:
            return np.frombuffer(data, dtype, n_records, offset), None
        n_bytes = older or dtype.itemsize
        whole = np.frombuffer(data, np.uint8, n_records * (n_bytes + self._ts_out_bytes), offset)
        whole = whole.reshape(n_records, -1)
        ts_out = whole[:, n_bytes:].copy().view("<u8")[:, 0] if self._ts_out_bytes else None
        rows = whole[:, :n_bytes].copy()
        rows[:, 0] = n_bytes // 4
        if older is not None:
            return _upgraded(rows.tobytes(), rtype, self._version), ts_out
        records = rows.view(dtype)[:, 0]
        records.flags.writeable = False
        return records, ts_out

    def _raise_if_corrupt(self) -> None:
        if self._error is not None:
            raise self._error

    def _corrupt(self, what: str, ahead: int = 0, advice: str = "") -> CorruptStreamError:
        return CorruptStreamError(
            self.source,
            self.offset + ahead,
            self.records,
            what,
            is_compressed=self.is_compressed,
            advice=advice,
        )

    def _no_dbn(self, head: bytes) -> InputError:
        if head.startswith(_ZIP):
            return InputError(f"{self.source}: is a zip, which cannot be read here; unzip it")
        if self._unwrapper is not None and (inner := compression_of(head)) is not None:
            return InputError(f"{self.source}: is compressed twice; decompress it to {inner}")
        return InputError(f"{self.source}: is not a DBN stream (begins with {head[:8]!r})")


def _header_bytes(prefix: bytes) -> int:
    """Return how many bytes a header has that begins with these."""
    return _PREFIX_BYTES + int.from_bytes(prefix[4:_PREFIX_BYTES], "little")


def _kind(metadata: dbn.Metadata) -> tuple[str | None, ...]:
    """Return what headers of files that were joined agree in."""
    kinds = (metadata.schema, metadata.stype_in, metadata.stype_out)
    return (metadata.dataset, *(None if kind is None else str(kind) for kind in kinds))


def _text(metadata: dbn.Metadata) -> str:
    dataset, *kinds = _kind(metadata)
    return " ".join([str(dataset), *(kind or "any" for kind in kinds)])


def encode_metadata(metadata: dbn.Metadata) -> bytes:
    """Return the header with which a DBN v3 stream begins."""
    return metadata.encode()


def encode_records(records: Records) -> memoryview:
    """Return the bytes of records in a DBN v3 stream; contiguous arrays are not copied."""
    contiguous = np.ascontiguousarray(records)
    return contiguous.view(np.uint8).data


def _run_length(data: bytes, offset: int, n_bytes: int, limit: int) -> int:
    """Return how many records from `offset` on, up to `limit`, have the first one's rtype and size.

    Looks further and further ahead, so that a stream of short runs costs what its runs are long.
    """
    if limit == 0:
        return 0
    heads = np.ndarray((limit,), np.uint16, data, offset, (n_bytes,))
    seen, look = 1, _FIRST_LOOK
    while seen < limit:
        differs = heads[seen : seen + look] != heads[0]
        if differs.any():
            return seen + int(differs.argmax())
        seen, look = seen + len(differs), look * 2
    return limit


def _upgraded(data: bytes, rtype: int, version: int) -> Records:
    """Return records of an older version in the layout of the newest.

    Parameters
    ----------
    data : bytes
        Whole records of one rtype, as `version` lays them out, without `ts_out`.
    rtype, version : int

    Returns
    -------
    structured array of `DTYPES[rtype]`, shape (n,)

    Notes
    -----
    These records (definitions, statistics, symbol mappings, system and error messages) are few
    beside the market data, which is the same in every version; databento_dbn itself converts them
    one by one.
    """
    decoder = dbn.DBNDecoder(has_metadata=False, input_version=version)
    upgraded = b"".join(bytes(record) for record in decoder.write_and_decode(data))
    return np.frombuffer(upgraded, DTYPES[rtype])
