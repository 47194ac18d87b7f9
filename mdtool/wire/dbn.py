"""DBN streams decoded as their bytes arrive, in pieces of any size, and encoded."""

from __future__ import annotations

from typing import Final

import databento_dbn as dbn
import numpy as np

from mdtool.core.errors import CorruptStreamError, InputError
from mdtool.core.records import Records
from mdtool.wire.compression import MAGIC_BYTES, Unwrapper, is_zstd
from mdtool.wire.dbn_metadata import without_ts_out
from mdtool.wire.dbn_records import DBN_VERSION, DTYPES, OLDER_BYTES

_MAGIC: Final = b"DBN"
_PREFIX_BYTES: Final = 8
"""Magic, version, and the length of the metadata that follows as uint32."""
_TS_OUT_BYTES: Final = 8
_FIRST_LOOK: Final = 64
"""Records compared at first when a run's length is sought; each further look doubles it."""


class DbnDecoder:
    """Turns the bytes of one DBN stream, v1 to v3, zstd or not, into arrays of records.

    Parameters
    ----------
    source : str
        What errors call the stream: a file's name, `stdin`, an address.

    Attributes
    ----------
    metadata : databento_dbn.Metadata or None
        None until the whole header has come. Says version 3 and no `ts_out` whatever the stream
        has, like the records that are returned.
    is_compressed : bool
    records : int
        How many whole records have been decoded.
    offset : int
        The byte, counted in the decompressed stream, up to which it has been decoded.
    """

    def __init__(self, source: str = "stream") -> None:
        self.source = source
        self.metadata: dbn.Metadata | None = None
        self.is_compressed = False
        self.records = 0
        self.offset = 0
        self._pending = b""
        self._unwrapper: Unwrapper | None = None
        self._is_begun = False
        self._version = DBN_VERSION
        self._ts_out_bytes = 0
        self._error: CorruptStreamError | None = None

    @property
    def version(self) -> int:
        """The DBN version of the stream, once `metadata` is known."""
        return self._version

    @property
    def has_ts_out(self) -> bool:
        """Whether the stream's records end with a `ts_out`, once `metadata` is known."""
        return self._ts_out_bytes > 0

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
            Runs of records of one rtype, in the order of the stream, laid out as `DTYPES` says:
            records of older versions are upgraded, `ts_out` is left out.

        Raises
        ------
        InputError
            When the stream is not DBN, or of an unknown version.
        CorruptStreamError
            When it contains garbage. All records before were returned: where some come from the
            same call, that call returns them and the next one raises.
        """
        self._raise_if_corrupt()
        runs: list[Records] = []
        if not self._is_begun:
            self._pending += bytes(data)
            if len(self._pending) < MAGIC_BYTES:
                return runs
            self._begin()
        else:
            self._pending = self._unwrap(bytes(data))
        if not self._has_metadata():
            return runs
        consumed = self._decode_records(self._pending, runs)
        self._pending = self._pending[consumed:]
        self.offset += consumed
        if not runs:
            self._raise_if_corrupt()
        return runs

    def wire_bytes(self, rtype: int) -> int:
        """Return how many bytes a record of an rtype takes in this stream."""
        older = OLDER_BYTES[self._version].get(rtype)
        return (older or DTYPES[rtype].itemsize) + self._ts_out_bytes

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
            When it ends inside its metadata, a record or a zstd frame.
        """
        self._raise_if_corrupt()
        if not self._is_begun:
            if not self._pending:
                raise InputError(f"{self.source}: is empty")
            raise self._no_dbn(self._pending)
        if self.metadata is None:
            raise self._corrupt("ends inside its metadata")
        if self._pending:
            raise self._corrupt("ends inside a record that begins")
        if self._unwrapper is not None and self._unwrapper.is_inside_frame:
            raise self._corrupt("ends inside a zstd frame")

    def _begin(self) -> None:
        self._is_begun = True
        data, self._pending = self._pending, b""
        if is_zstd(data):
            self.is_compressed = True
            self._unwrapper = Unwrapper()
        self._pending = self._unwrap(data)

    def _unwrap(self, data: bytes) -> bytes:
        """Return what was pending and what `data` adds to it, decompressed."""
        if self._unwrapper is not None:
            try:
                data = self._unwrapper.feed(data)
            except InputError as error:
                raise self._corrupt(f"{error}") from error
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
        self._version = head[3]
        if self._version not in OLDER_BYTES:
            raise InputError(
                f"{self.source}: is DBN version {self._version}; 1 to {DBN_VERSION} are known"
            )
        length = _PREFIX_BYTES + int.from_bytes(head[4:], "little")
        if len(self._pending) < length:
            return False
        try:
            metadata = dbn.Metadata.decode(self._pending[:length])
        except (dbn.DBNError, ValueError) as error:
            raise self._corrupt(f"has damaged metadata ({error})") from error
        self._ts_out_bytes = _TS_OUT_BYTES if metadata.ts_out else 0
        self.metadata = without_ts_out(metadata)
        self._pending = self._pending[length:]
        self.offset = length
        return True

    def _decode_records(self, data: bytes, runs: list[Records]) -> int:
        """Append to `runs` the whole records of `data`; return how many bytes they are."""
        offset = 0
        while len(data) - offset >= 2:
            rtype = data[offset + 1]
            n_bytes = data[offset] * 4
            if rtype not in DTYPES or n_bytes != self.wire_bytes(rtype):
                self._error = self._corrupt(
                    f"contains garbage (rtype {rtype}, {n_bytes} bytes)", offset
                )
                break
            n_records = _run_length(data, offset, n_bytes, (len(data) - offset) // n_bytes)
            if n_records == 0:
                break
            runs.append(self._read_run(data, offset, n_records, rtype))
            self.records += n_records
            offset += n_records * n_bytes
        return offset

    def _read_run(self, data: bytes, offset: int, n_records: int, rtype: int) -> Records:
        dtype = DTYPES[rtype]
        older = OLDER_BYTES[self._version].get(rtype)
        if not self._ts_out_bytes and older is None:
            return np.frombuffer(data, dtype, n_records, offset)
        n_bytes = older or dtype.itemsize
        rows = np.frombuffer(data, np.uint8, n_records * (n_bytes + self._ts_out_bytes), offset)
        rows = rows.reshape(n_records, -1)[:, :n_bytes].copy()
        rows[:, 0] = n_bytes // 4
        if older is not None:
            return _upgraded(rows.tobytes(), rtype, self._version)
        records = rows.view(dtype)[:, 0]
        records.flags.writeable = False
        return records

    def _raise_if_corrupt(self) -> None:
        if self._error is not None:
            raise self._error

    def _corrupt(self, what: str, ahead: int = 0) -> CorruptStreamError:
        return CorruptStreamError(
            self.source,
            self.offset + ahead,
            self.records,
            what,
            is_compressed=self.is_compressed,
        )

    def _no_dbn(self, head: bytes) -> InputError:
        return InputError(f"{self.source}: is not a DBN stream (begins with {head[:8]!r})")


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
