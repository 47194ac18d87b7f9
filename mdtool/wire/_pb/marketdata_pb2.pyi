from mdtool.wire._pb import tick_pb2 as _tick_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RefusalReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ACCEPTED: _ClassVar[RefusalReason]
    SYMBOL: _ClassVar[RefusalReason]
    PRICE: _ClassVar[RefusalReason]
    VOLUME: _ClassVar[RefusalReason]
    TIMESTAMP: _ClassVar[RefusalReason]
    MALFORMED: _ClassVar[RefusalReason]
    PROBE: _ClassVar[RefusalReason]
ACCEPTED: RefusalReason
SYMBOL: RefusalReason
PRICE: RefusalReason
VOLUME: RefusalReason
TIMESTAMP: RefusalReason
MALFORMED: RefusalReason
PROBE: RefusalReason

class AggregateRequest(_message.Message):
    __slots__ = ("symbol", "session")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    session: str
    def __init__(self, symbol: _Optional[str] = ..., session: _Optional[str] = ...) -> None: ...

class Aggregate(_message.Message):
    __slots__ = ("symbol", "open", "high", "low", "close", "volume", "timestamp")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    open: float
    high: float
    low: float
    close: float
    volume: int
    timestamp: int
    def __init__(self, symbol: _Optional[str] = ..., open: _Optional[float] = ..., high: _Optional[float] = ..., low: _Optional[float] = ..., close: _Optional[float] = ..., volume: _Optional[int] = ..., timestamp: _Optional[int] = ...) -> None: ...

class TickBatch(_message.Message):
    __slots__ = ("stream_id", "first_sequence", "frames", "new_symbols", "symbol", "price", "volume", "exchange_timestamp", "ingest_timestamp", "offset", "refused_offset", "refused_reason", "new_lots", "traceparent")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    NEW_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    EXCHANGE_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    INGEST_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    REFUSED_OFFSET_FIELD_NUMBER: _ClassVar[int]
    REFUSED_REASON_FIELD_NUMBER: _ClassVar[int]
    NEW_LOTS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    first_sequence: int
    frames: int
    new_symbols: _containers.RepeatedScalarFieldContainer[str]
    symbol: bytes
    price: bytes
    volume: bytes
    exchange_timestamp: bytes
    ingest_timestamp: bytes
    offset: bytes
    refused_offset: bytes
    refused_reason: bytes
    new_lots: _containers.RepeatedCompositeFieldContainer[SymbolLot]
    traceparent: str
    def __init__(self, stream_id: _Optional[str] = ..., first_sequence: _Optional[int] = ..., frames: _Optional[int] = ..., new_symbols: _Optional[_Iterable[str]] = ..., symbol: _Optional[bytes] = ..., price: _Optional[bytes] = ..., volume: _Optional[bytes] = ..., exchange_timestamp: _Optional[bytes] = ..., ingest_timestamp: _Optional[bytes] = ..., offset: _Optional[bytes] = ..., refused_offset: _Optional[bytes] = ..., refused_reason: _Optional[bytes] = ..., new_lots: _Optional[_Iterable[_Union[SymbolLot, _Mapping]]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class SymbolLot(_message.Message):
    __slots__ = ("symbol", "step")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    symbol: int
    step: int
    def __init__(self, symbol: _Optional[int] = ..., step: _Optional[int] = ...) -> None: ...

class BatchAck(_message.Message):
    __slots__ = ("stream_id", "next_sequence")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    next_sequence: int
    def __init__(self, stream_id: _Optional[str] = ..., next_sequence: _Optional[int] = ...) -> None: ...

class StreamPositionRequest(_message.Message):
    __slots__ = ("stream_id",)
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    def __init__(self, stream_id: _Optional[str] = ...) -> None: ...

class StreamPosition(_message.Message):
    __slots__ = ("known", "next_sequence")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    known: bool
    next_sequence: int
    def __init__(self, known: _Optional[bool] = ..., next_sequence: _Optional[int] = ...) -> None: ...

class StreamClaim(_message.Message):
    __slots__ = ("stream_id", "principal")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    principal: str
    def __init__(self, stream_id: _Optional[str] = ..., principal: _Optional[str] = ...) -> None: ...

class StreamOwner(_message.Message):
    __slots__ = ("principal",)
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    principal: str
    def __init__(self, principal: _Optional[str] = ...) -> None: ...

class BarsRequest(_message.Message):
    __slots__ = ("symbol", "interval", "limit", "before", "since")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    interval: str
    limit: int
    before: int
    since: int
    def __init__(self, symbol: _Optional[str] = ..., interval: _Optional[str] = ..., limit: _Optional[int] = ..., before: _Optional[int] = ..., since: _Optional[int] = ...) -> None: ...

class Bars(_message.Message):
    __slots__ = ("start", "open", "high", "low", "close", "volume", "count")
    START_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    start: bytes
    open: bytes
    high: bytes
    low: bytes
    close: bytes
    volume: bytes
    count: bytes
    def __init__(self, start: _Optional[bytes] = ..., open: _Optional[bytes] = ..., high: _Optional[bytes] = ..., low: _Optional[bytes] = ..., close: _Optional[bytes] = ..., volume: _Optional[bytes] = ..., count: _Optional[bytes] = ...) -> None: ...

class BarUpdatesRequest(_message.Message):
    __slots__ = ("symbol", "interval")
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    symbol: str
    interval: str
    def __init__(self, symbol: _Optional[str] = ..., interval: _Optional[str] = ...) -> None: ...

class BarUpdates(_message.Message):
    __slots__ = ("new_symbols", "symbol", "bars")
    NEW_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    BARS_FIELD_NUMBER: _ClassVar[int]
    new_symbols: _containers.RepeatedScalarFieldContainer[str]
    symbol: bytes
    bars: Bars
    def __init__(self, new_symbols: _Optional[_Iterable[str]] = ..., symbol: _Optional[bytes] = ..., bars: _Optional[_Union[Bars, _Mapping]] = ...) -> None: ...

class UpdatesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TradesRequest(_message.Message):
    __slots__ = ("interval_ms",)
    INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    interval_ms: int
    def __init__(self, interval_ms: _Optional[int] = ...) -> None: ...

class UpdateBatch(_message.Message):
    __slots__ = ("new_symbols", "symbol", "open", "high", "low", "close", "volume", "count", "timestamp", "ingest_timestamp", "counts", "is_part", "probes", "new_lots", "traceparent")
    NEW_SYMBOLS_FIELD_NUMBER: _ClassVar[int]
    SYMBOL_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    INGEST_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    IS_PART_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    NEW_LOTS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    new_symbols: _containers.RepeatedScalarFieldContainer[str]
    symbol: bytes
    open: bytes
    high: bytes
    low: bytes
    close: bytes
    volume: bytes
    count: bytes
    timestamp: bytes
    ingest_timestamp: bytes
    counts: IngestCounts
    is_part: bool
    probes: _containers.RepeatedCompositeFieldContainer[ProbeFrame]
    new_lots: _containers.RepeatedCompositeFieldContainer[SymbolLot]
    traceparent: str
    def __init__(self, new_symbols: _Optional[_Iterable[str]] = ..., symbol: _Optional[bytes] = ..., open: _Optional[bytes] = ..., high: _Optional[bytes] = ..., low: _Optional[bytes] = ..., close: _Optional[bytes] = ..., volume: _Optional[bytes] = ..., count: _Optional[bytes] = ..., timestamp: _Optional[bytes] = ..., ingest_timestamp: _Optional[bytes] = ..., counts: _Optional[_Union[IngestCounts, _Mapping]] = ..., is_part: _Optional[bool] = ..., probes: _Optional[_Iterable[_Union[ProbeFrame, _Mapping]]] = ..., new_lots: _Optional[_Iterable[_Union[SymbolLot, _Mapping]]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class ProbeFrame(_message.Message):
    __slots__ = ("stream_id", "sequence")
    STREAM_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    stream_id: str
    sequence: int
    def __init__(self, stream_id: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class IngestCounts(_message.Message):
    __slots__ = ("ticks", "duplicates", "late", "refused", "late_for_sessions")
    class RefusedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    TICKS_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    LATE_FOR_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    ticks: int
    duplicates: int
    late: int
    refused: _containers.ScalarMap[str, int]
    late_for_sessions: int
    def __init__(self, ticks: _Optional[int] = ..., duplicates: _Optional[int] = ..., late: _Optional[int] = ..., refused: _Optional[_Mapping[str, int]] = ..., late_for_sessions: _Optional[int] = ...) -> None: ...
