"""What a session is sent: answers to its requests, replays, and records as they are due."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from mdtool.adapters.dbn_bytes import DbnBytes
from mdtool.core.dtypes import F_BAD_TS_RECV, MBO
from mdtool.core.errors import InputError
from mdtool.core.permissions import Access, ForbiddenError
from mdtool.core.publishers import publisher_of
from mdtool.core.records import Records
from mdtool.engine.book.snapshot import empty_books, with_empty_ended
from mdtool.engine.derived import Made
from mdtool.services.dbn_access import FEED_OF_SCHEMA
from mdtool.services.live_gateway.config import HOLD, LiveGatewayConfig
from mdtool.services.live_gateway.fanout import Due
from mdtool.services.live_gateway.inbox import Inbox, SessionError
from mdtool.services.live_gateway.output import Form, Output
from mdtool.services.live_gateway.playback import Needs, Pass, Playback, Rereader
from mdtool.services.live_gateway.subscriptions import (
    SKIPPABLE,
    Mask,
    Subscription,
    Subscriptions,
)
from mdtool.services.replay.reading import Part
from mdtool.services.replay.runs import Run
from mdtool.wire.dbn import encode_metadata
from mdtool.wire.dbn_records import DBN_VERSION, RTYPES
from mdtool.wire.live import MAX_SYMBOLS, STYPES, Authentication, Start, Subscribe, Unsubscribe
from mdtool.wire.live_records import (
    Failure,
    aged_out,
    heartbeat,
    interval_ended,
    invalid,
    not_subscribed,
    replayed,
    skipped,
    slow_reading,
    subscribed,
    unresolved,
    unsubscribed,
)

_Select = Callable[[frozenset[Subscription]], Mask]

_MAX_PENDING: Final = 1_000
"""Subscriptions before the start."""
_FAILURES_AT_ONCE: Final = 512


class Stream:
    """What one session is sent after its authentication.

    Parameters
    ----------
    config : LiveGatewayConfig
    inbox : Inbox
        What the client requests.
    output : Output
    request : Authentication
    access : Access
        What the client may read.
    """

    def __init__(
        self,
        config: LiveGatewayConfig,
        inbox: Inbox,
        output: Output,
        request: Authentication,
        access: Access,
    ) -> None:
        self._config = config
        self._inbox = inbox
        self._output = output
        self._request = request
        self._access = access
        self._pending: list[Subscribe | Unsubscribe] = []
        self._subscriptions: Subscriptions
        self._run: Run
        self._pass: Pass
        self._n_subscribed = 0
        self._position = 0
        self._skipped = 0
        self._has_kept_pace = True
        self._is_behind = False
        self._is_idle = False

    async def run(self, playback: Playback) -> None:
        """Take subscriptions, and once started send records until the end of the input.

        Raises
        ------
        SessionError
            When the session ends with an error.
        ForbiddenError
            When the client may read nothing of what it subscribes to.
        InputError
            When the input cannot be read.
        """
        if not await self._collect():
            return
        needs = Needs() if self._config.bare else self._needs(self._wanted())
        if not self._config.bare:
            self._output.header()
        async with contextlib.AsyncExitStack() as joining:
            current: Pass | None
            with self._beating():
                current = await joining.enter_async_context(playback.joined(self, needs))
            is_first = True
            while current is not None and not self._inbox.has_left:
                async with contextlib.AsyncExitStack() as stack:
                    files = Rereader(current, stack)
                    stack.enter_context(current.fanout.joined(self))
                    if self._config.bare and current.file is not None:
                        await self._send_file(current, current.file, is_first=is_first)
                    elif self._config.bare:
                        await self._send_bare(current, files, 0 if is_first else current.begin)
                    else:
                        await self._send(current, files, is_first)
                is_first = False
                if current.run.error is not None:
                    raise InputError(current.run.error)
                ended = current
                with self._beating():
                    current = await playback.after(ended)
                while current is None and self._is_held:
                    await self._hold(playback.another(ended))
                    with self._beating():
                        current = await playback.after(ended)

    def wake(self) -> None:
        """Have the session continue by itself."""
        self._inbox.signal.set()

    def forward(self, due: Due) -> bool:
        """Send what is subscribed of records that are due, where nothing else is to be done.

        This is what `_follow` does for a session at the live point, without its turn. Returns
        whether it was done.
        """
        form = self._output.shared_form
        if form is None or not self._is_idle or self._position != due.begin:
            return False
        self._subscriptions.offset_ns = self._pass.offset_ns
        if not self._subscriptions.are_settled(due.first_ns, due.latest_ns):
            return False
        start_ns = self._subscriptions.start_ns
        if start_ns and due.earliest_ns < start_ns:
            return False
        for array in due.arrays:
            is_wanted, ids = self._subscriptions.ids(array.rtype, array.schema)
            if not is_wanted:
                continue
            data, n_records = array.of(ids, form)
            if n_records:
                self._output.shared(data, n_records)
            if array.schema is not None and array.end_ns is not None:
                self._output.notice(interval_ended(array.schema), array.end_ns)
        self._output.push()
        self._position = due.end
        return True

    @property
    def _is_held(self) -> bool:
        """Whether the session stays open at the end of the input."""
        return self._config.at_end == HOLD and not self._inbox.has_left

    async def _hold(self, continued: Coroutine[Any, Any, None]) -> None:
        """Wait at the end of the input until it continues, or for a request, and answer it.

        New subscriptions get the intervals that the end has closed.
        """
        if self._config.bare:
            await _first_of(continued, self._inbox.departure())
            return
        left_s = self._beat()
        await self._output.flush()
        await _first_of(continued, self._inbox.arrival(), within_s=left_s)
        self._beat()
        before = frozenset(self._subscriptions)
        await self._handle_requests()
        self._send_made(self._run.closing, before)

    async def _collect(self) -> bool:
        """Take subscriptions until the start; return whether there is one."""
        while not self._inbox.has_left:
            match request := self._inbox.take():
                case None:
                    await self._inbox.arrival()
                case Start():
                    return True
                case Subscribe() | Unsubscribe():
                    if isinstance(request, Subscribe):
                        request = _checked(request)
                    self._pending.append(request)
                    if len(self._pending) > _MAX_PENDING:
                        raise SessionError(invalid("too many subscriptions before the start"))
                    _check_symbols(sum(len(each.symbols) for each in self._pending))
        return False

    async def _send(self, current: Pass, files: Rereader, is_first: bool) -> None:
        """Send one pass, the first one from the live point on and what is replayed before it."""
        run = self._run = current.run
        self._pass = current
        wanted = self._wanted()
        await self._follow_schemas(*wanted)
        live = run.position if is_first else current.begin
        self._position = live
        latest_ns = current.begin_ns if current.from_ns is None else current.from_ns
        if is_first and live and run.latest_ns > 0:
            latest_ns = max(run.latest_ns, current.from_ns or 0)
        starts = [each.start_ns for each in wanted if each.start_ns is not None]
        has_replay = bool(starts) and live > 0
        begin_ns = min(max(min(starts), current.begin_ns), latest_ns) if has_replay else latest_ns
        directory = current.directory_at(0 if has_replay else live)
        self._has_kept_pace = not has_replay
        if is_first:
            self._subscriptions = Subscriptions(directory, current.played)
        self._subscriptions.offset_ns = current.offset_ns
        self._subscriptions.begin(directory, begin_ns)
        for request in self._pending:
            if isinstance(request, Subscribe):
                await self._subscribe(request)
            else:
                await self._unsubscribe(request)
        self._pending = []
        if is_first and starts:
            if has_replay:
                await self._replay(live, files)
            for schema in dict.fromkeys(
                each.schema for each in self._subscriptions if each.is_replay
            ):
                self._output.notice(replayed(schema))
        await self._follow(current, files)

    async def _replay(self, live: int, files: Rereader) -> None:
        """Send subscriptions with a start what came before the live point."""
        others = frozenset(each for each in self._subscriptions if not each.is_replay)
        schemas = self._subscriptions.schemas
        derived = self._run.derived
        is_made = derived.has_source and bool(schemas & derived.schemas)
        position = 0
        while position < live and not self._inbox.has_left:
            part = None if is_made else self._run.backlog.part(position)
            if part is None:
                if not self._pass.played.can_repeat:
                    raise SessionError(aged_out())
                with self._beating():
                    part = await files.read(position, live, schemas)
            position += len(part.records)
            self._send_part(part, others)
            await self._output.flush()
            await self._breathe()

    async def _follow(self, current: Pass, files: Rereader) -> None:
        """Send records from the position on, until the pass is over."""
        run = current.run
        while not self._inbox.has_left and not run.is_stopped:
            await self._handle_requests()
            if self._position >= run.position:
                self._report_skipped()
                if run.is_over:
                    self._send_made(run.closing, frozenset())
                    await self._output.flush()
                    return
                run.request(self._position + 1)
                await self._idle()
                continue
            part = run.backlog.part(self._position)
            if part is None:
                self._fall_behind()
                begins = [each.begin for each in self._subscriptions]
                end = min([run.position, *(each for each in begins if each > self._position)])
                end = run.backlog.begin_within(self._position, end)
                with self._beating():
                    part = await files.read(self._position, end, self._subscriptions.schemas)
            else:
                self._has_kept_pace = True
                self._report_skipped()
            left_out = self._left_out()
            self._position += len(part.records)
            self._send_part(part, left_out)
            await self._output.drain()
            await self._breathe()

    async def _send_file(self, current: Pass, path: str, *, is_first: bool) -> None:
        """Send the bytes of the input's only file, as records are reached, and nothing else."""
        run = current.run
        await asyncio.to_thread(run.check_unchanged)
        with contextlib.closing(await asyncio.to_thread(DbnBytes, path)) as file:
            begin = 0 if is_first else current.begin
            while data := await asyncio.to_thread(file.read, begin):
                if not self._output.has_header:
                    self._output.begin(data, Form(file.has_ts_out, file.version))
                elif is_first:
                    self._output.own(data, 0)
            while not self._inbox.has_left and not run.is_stopped:
                position, is_over, n_before = run.position, run.is_over, file.records
                is_whole = is_over and run.error is None
                data = await asyncio.to_thread(file.read, None if is_whole else position)
                if data:
                    self._output.own(data, file.records - n_before)
                    await self._output.flush()
                elif is_over:
                    return
                else:
                    await self._reached(run, position + 1)
                self._inbox.check()

    async def _send_bare(self, current: Pass, files: Rereader, position: int) -> None:
        """Send the input's header and all of its records, and nothing else, as DBN 3."""
        run = current.run
        if not self._output.has_header:
            self._output.begin(encode_metadata(run.metadata), Form(False, DBN_VERSION))
        while not self._inbox.has_left and not run.is_stopped:
            if await self._reached(run, position + 1) <= position:
                return
            part = run.backlog.part(position)
            if part is None:
                end = run.backlog.begin_within(position, run.position)
                part = await files.read(position, end, frozenset())
            position += len(part.records)
            self._output.unchanged(part.records)
            await self._output.flush()
            await asyncio.sleep(0)

    async def _reached(self, run: Run, position: int) -> int:
        """As `Run.reached`, until the client leaves or a fault happens."""
        await _first_of(run.reached(position), self._inbox.departure())
        return run.position

    def _send_part(self, part: Part, left_out: frozenset[Subscription]) -> None:
        """Send what is subscribed of the next records, and mappings where they change."""
        self._subscriptions.offset_ns = self._pass.offset_ns
        for records, mappings in self._subscriptions.parts(part.records, part.latest_ns):
            if mappings:
                self._output.mappings(mappings)
            self._send_chosen(records, partial(self._subscriptions.select, records), left_out)
        self._send_made(part.made, left_out)

    def _send_made(self, made: Sequence[Made], left_out: frozenset[Subscription]) -> None:
        """Send what is subscribed of what was made of records."""
        subscriptions = self._subscriptions
        for each in made:
            if not subscriptions.of_schema(each.schema):
                continue
            self._send_chosen(each.records, partial(subscriptions.select_made, each), left_out)
            if each.end_ns is not None and subscriptions.of_schema(each.schema, left_out):
                self._output.notice(interval_ended(each.schema), each.end_ns)

    def _send_chosen(
        self, records: Records, select: _Select, left_out: frozenset[Subscription]
    ) -> None:
        """Send records of one rtype, and count those that a slow client misses."""
        chosen = select(left_out)
        n_chosen = int(np.count_nonzero(chosen))
        if n_chosen:
            self._output.data(records if n_chosen == len(records) else records[chosen])
        if self._is_skipping:
            self._skipped += int(np.count_nonzero(select(frozenset()))) - n_chosen

    async def _breathe(self) -> None:
        """Let others work, and the client know that the session is alive."""
        self._beat()
        await asyncio.sleep(0)

    @contextlib.contextmanager
    def _beating(self) -> Iterator[None]:
        """Send heartbeats within a block that may take long, as reading files does."""
        if self._config.bare:
            yield
            return
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def beat() -> None:
            nonlocal timer
            timer = loop.call_later(self._beat(), beat)
            self._output.push()

        timer = loop.call_later(self._left_s, beat)
        try:
            yield
        finally:
            timer.cancel()

    @property
    def _left_s(self) -> float:
        """After how many seconds a heartbeat is due; of one that is late, a negative number."""
        return self._output.latest_s + self._request.heartbeat_interval_s - time.monotonic()

    def _beat(self) -> float:
        """Send a heartbeat if one is due; return after how many seconds the next one is."""
        left_s = self._left_s
        if left_s > 0:
            return left_s
        self._output.notice(heartbeat())
        return float(self._request.heartbeat_interval_s)

    async def _idle(self) -> None:
        """Wait until the run has moved, a request has come, or a heartbeat was sent."""
        left_s = self._beat()
        await self._output.flush()
        self._is_idle = True
        await self._inbox.arrival(left_s)
        self._is_idle = False
        self._beat()

    async def _handle_requests(self) -> None:
        """Answer the requests that came after the start."""
        while (request := self._inbox.take()) is not None:
            match request:
                case Subscribe():
                    checked = _checked(_live(request))
                    n_symbols = sum(len(each.symbols) for each in self._subscriptions)
                    _check_symbols(n_symbols + len(checked.symbols))
                    await self._follow_schemas(checked)
                    await self._subscribe(checked)
                case Unsubscribe():
                    await self._unsubscribe(request)
                case _:
                    raise SessionError(invalid("the session has started already"))

    async def _follow_schemas(self, *requests: Subscribe) -> None:
        """Have made what requests and subscriptions need; requests that are rejected need nothing.

        What the session is sent of it begins where the run is then.
        """
        with self._beating():
            await self._pass.follow(self, self._needs(requests))

    def _wanted(self) -> list[Subscribe]:
        """Return the subscriptions that were requested before the start."""
        return [each for each in self._pending if isinstance(each, Subscribe)]

    def _needs(self, requests: Sequence[Subscribe]) -> Needs:
        """Return what requests and subscriptions need."""
        schemas = {each.schema for each in requests}
        if self._n_subscribed:
            schemas |= self._subscriptions.schemas
        has_snapshot = any(each.has_snapshot for each in requests)
        replayed = frozenset(each.schema for each in requests if each.start_ns is not None)
        has_books = self._config.snapshots and has_snapshot
        return Needs(frozenset(schemas), has_books, replayed)

    async def _subscribe(self, request: Subscribe) -> None:
        number = self._n_subscribed if request.id is None else request.id
        self._n_subscribed += 1
        if request.has_snapshot and not self._config.snapshots:
            raise SessionError(invalid("this gateway has no snapshots"))
        feed = FEED_OF_SCHEMA[request.schema]
        if not self._access.has_feed(feed):
            raise ForbiddenError(f"none of your roles has feed {feed}")
        self._output.notice(subscribed(number, request.schema))
        subscription = Subscription(
            request, number, dict.fromkeys(request.symbols), self._access.reader(feed)
        )
        mappings, missing = self._subscriptions.add(subscription)
        if mappings:
            self._output.mappings(mappings)
        await self._send_failures([unresolved(symbol) for symbol in missing])
        if request.has_snapshot:
            self._send_snapshot(subscription)

    def _send_snapshot(self, subscription: Subscription) -> None:
        """Send the books as they are at the live point, from which on the records follow.

        Those without orders are sent too, so that the client knows that it has all of them. Input
        that has no orders has no books.
        """
        run = self._run
        subscription.begin = run.position
        if not self._pass.played.has("mbo"):
            return
        empty = set(subscription.named)
        for records in run.snapshot(subscription.ids):
            if records.dtype == MBO and len(records):
                orders = records[subscription.selects(records)]
                empty.difference_update(orders["instrument_id"].tolist())
                self._send_books(with_empty_ended(orders))
        publisher_id = publisher_of(run.metadata.dataset)
        ts_ns = run.latest_ns if run.latest_ns > 0 else self._pass.begin_ns
        self._send_books(empty_books(sorted(empty), publisher_id, ts_ns))

    def _send_books(self, snapshot: Records) -> None:
        snapshot["flags"][snapshot["action"] == b"R"] |= F_BAD_TS_RECV
        self._output.data(snapshot)

    async def _unsubscribe(self, request: Unsubscribe) -> None:
        missing = self._subscriptions.remove(request)
        self._run.derived.follow(self, self._subscriptions.schemas)
        await self._send_failures([not_subscribed(symbol, request.schema) for symbol in missing])
        if len(missing) < len(request.symbols):
            self._output.notice(unsubscribed(request.schema))

    async def _send_failures(self, failures: Sequence[Failure]) -> None:
        """Send errors that are not fatal, as fast as the client reads them."""
        for number, each in enumerate(failures, 1):
            is_last = number == len(failures)
            self._output.failure(each, is_last=is_last)
            if is_last or not number % _FAILURES_AT_ONCE:
                await self._output.drain()

    @property
    def _is_skipping(self) -> bool:
        """Whether the client misses records, for it is behind."""
        return self._is_behind and self._request.skips

    def _left_out(self) -> frozenset[Subscription]:
        """Return the subscriptions that get none of the records at the position."""
        return frozenset(
            each
            for each in self._subscriptions
            if each.begin > self._position or (self._is_skipping and each.schema in SKIPPABLE)
        )

    def _fall_behind(self) -> None:
        """Warn a client that does not keep pace any longer.

        At full speed there is no pace to keep, and behind a replay it was not yet reached.
        """
        if self._run.pace.speed and self._has_kept_pace and not self._is_behind:
            self._is_behind = True
            for schema in dict.fromkeys(each.schema for each in self._subscriptions):
                self._output.notice(slow_reading(schema))

    def _report_skipped(self) -> None:
        """Say what was left out, once the client keeps pace again."""
        self._is_behind = False
        if self._skipped:
            self._output.failure(skipped(self._skipped))
            self._skipped = 0


async def _first_of(*waits: Coroutine[Any, Any, object], within_s: float | None = None) -> None:
    """Wait until one of some is done, at most so long; cancel the others, and raise its error."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for each in tasks:
            each.cancel()


def _checked(request: Subscribe) -> Subscribe:
    """Return a subscription that is valid.

    Raises
    ------
    SessionError
        When it is not.
    """
    reason = None
    if request.schema not in RTYPES:
        reason = f"unknown schema {request.schema}"
    elif request.stype_in not in STYPES:
        reason = f"stype_in {request.stype_in} is none of {', '.join(STYPES)}"
    elif request.start_ns is not None and request.start_ns > time.time_ns():
        reason = "start is in the future"
    elif request.has_snapshot and request.schema != "mbo":
        reason = "snapshot is for schema mbo alone"
    elif request.has_snapshot and request.start_ns is not None:
        reason = "snapshot excludes start"
    if reason is not None:
        raise SessionError(invalid(reason))
    return request


def _check_symbols(n_symbols: int) -> None:
    """Raise SessionError where subscriptions have more symbols than a session may have."""
    if n_symbols > MAX_SYMBOLS:
        raise SessionError(invalid(f"more than {MAX_SYMBOLS:,} symbols in all subscriptions"))


def _live(request: Subscribe) -> Subscribe:
    """Return a subscription without its start, which counts before the session's start only."""
    return dataclasses.replace(request, start_ns=None)
