"""The live gateway: it listens for clients of the vendor's live protocol, and plays its input."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mdtool.adapters.audit import AuditConfig, AuditLog
from mdtool.adapters.dbn_select import Selection
from mdtool.adapters.identity.authenticator import POLL_S
from mdtool.core.batch import Batch
from mdtool.core.config import load, load_tables
from mdtool.core.errors import InputError, StartupError, UsageError
from mdtool.core.lifecycle import Started
from mdtool.core.permissions import Roles
from mdtool.core.tcp import listen, stream_protocol
from mdtool.core.tls import ServerTls, TlsConfig
from mdtool.services.client import Admission
from mdtool.services.limits import CapacityError, LimitError, Limits
from mdtool.services.live_gateway.config import LOOP, LiveGatewayConfig
from mdtool.services.live_gateway.control import LOOPBACK, Control, NoSessionError
from mdtool.services.live_gateway.faults import Fault, SessionFaults, parse_faults
from mdtool.services.live_gateway.inputs import Input, inputs
from mdtool.services.live_gateway.keys import Keys
from mdtool.services.live_gateway.playback import Pass, Playback
from mdtool.services.live_gateway.session import Session
from mdtool.services.metrics import metrics_served
from mdtool.services.security import Security, keep_local
from mdtool.wire.dbn_records import DTYPES, RTYPES

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class LiveGateway:
    """Serves DBN files, or a stream on standard input, to clients of the live protocol.

    Parameters
    ----------
    config : LiveGatewayConfig
    paths : sequence of str
        DBN files, folders or zips of them; or `-` alone.
    selection : Selection, optional
        The symbols and times to play.
    from_ns : int, optional
        When playback begins, in the input's own times.
    """

    name = "live-gateway"

    def __init__(
        self,
        config: LiveGatewayConfig,
        paths: Sequence[str],
        selection: Selection | None = None,
        from_ns: int | None = None,
    ) -> None:
        self._config = config
        self._paths = paths
        self._selection = selection
        self._from_ns = from_ns
        self._admission = Admission(
            Limits(requests_per_s=config.connects_per_s, connections=config.max_sessions)
        )
        self._n_sessions = 0
        self._playbacks: dict[str, Playback] = {}
        self._sessions: dict[int, Session] = {}
        self._faults: list[Fault] = []

    async def run(self, started: Started) -> None:
        """Serve until cancelled.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or the input or the keys cannot be read.
        UsageError
            When standard input is to be looped, or merged with files, or a fault is not valid.
        """
        config = self._config
        if config.keys is None:
            keep_local(self.name, config.host, config.auth)
        security = Security.load(self.name, LOOPBACK, config.auth)
        self._faults = parse_faults(config.faults)
        for fault in self._faults if config.bare else ():
            fault.check_bare(is_running=False)
        tls = _tls(config)
        audit = load(AuditConfig, "audit", {}) if config.keys is not None else AuditConfig()
        log = AuditLog(audit, self.name) if audit.file else None
        self._keys = Keys(config.keys, Roles(load_tables("roles")), log)
        try:
            played = await asyncio.to_thread(inputs, self._paths, self._selection)
            for each in played.values():
                if each.can_repeat:
                    await asyncio.to_thread(_probe, each, config)
                elif config.at_end == LOOP:
                    raise UsageError("--at-end loop: standard input is read once; give files")
        except InputError as error:
            raise StartupError(str(error)) from error
        async with asyncio.TaskGroup() as tasks:
            for dataset, each in played.items():
                self._playbacks[dataset] = Playback(each, config, tasks, self._from_ns)
            protocol = stream_protocol(tasks, self._serve)
            server = await listen(protocol, config.host, config.port, tls=tls)
            control = Control(self._playbacks, self._sessions, self._inject)
            try:
                async with (
                    control.listening(config.port_of_control, security) as control_address,
                    metrics_served(config.metrics_port, self._measures) as metrics,
                ):
                    tasks.create_task(self._watch_keys())
                    started({"live": server.address, "control": control_address, **metrics})
                    await asyncio.get_running_loop().create_future()
            finally:
                server.close()
                if log is not None:
                    log.close()

    async def _watch_keys(self) -> None:
        """Read the keys again when their file changes, and end sessions whose keys have ended."""
        while True:
            await asyncio.sleep(POLL_S)
            if await asyncio.to_thread(self._keys.reload):
                for session in [*self._sessions.values()]:
                    session.check_key()

    def _measures(self) -> Iterator[Metric]:
        from mdtool.services import families

        return families.clients(self._admission)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._n_sessions += 1
        number = self._n_sessions
        faults = SessionFaults(number, self._faults)
        session = Session(number, self._playbacks, self._config, self._keys, faults, reader, writer)
        client = self._admission.peer(writer.transport)
        try:
            client.spend_request()
            with client.connected("live", lambda _code, _reason: writer.close()):
                self._sessions[number] = session
                try:
                    await session.serve()
                finally:
                    del self._sessions[number]
        except (CapacityError, LimitError) as error:
            await session.serve(rejection=str(error))

    def _inject(self, faults: Sequence[Fault]) -> None:
        """Add faults to open sessions, and to later ones those that do not happen now.

        Raises
        ------
        UsageError
            When one cannot happen here; none is added then.
        NoSessionError
            When one is of a session that is not there, nor can come; none is added then.
        """
        for fault in faults:
            if self._config.bare:
                fault.check_bare(is_running=True)
            self._check_session(fault)
        for fault in faults:
            if not fault.is_immediate:
                self._faults.append(fault)
            for number, session in [*self._sessions.items()]:
                if fault.session in {None, number}:
                    session.inject(fault)

    def _check_session(self, fault: Fault) -> None:
        """Raise NoSessionError if it is of a session that is not there, nor can come."""
        number = fault.session
        if number is None or number in self._sessions:
            return
        if number <= self._n_sessions:
            raise NoSessionError(f"session {number}: is not open; GET /status lists those that are")
        if fault.is_immediate:
            raise NoSessionError(
                f"session {number}: has not begun; give the fault a time, such as after=0"
            )


def _tls(config: LiveGatewayConfig) -> ServerTls | None:
    """Return the TLS of its own settings, None without it: official clients speak plain TCP."""
    if config.tls_cert is None:
        if config.tls_key is not None:
            raise UsageError("--tls-key: goes with --tls-cert FILE")
        return None
    return ServerTls(TlsConfig(cert=config.tls_cert, key=config.tls_key or ""), "--tls-cert")


def _probe(played: Input, config: LiveGatewayConfig) -> None:
    """Check that files can be read, and compile kernels."""
    probed = Pass.of(played, config)
    probed.run.close()
    if config.snapshots:
        probed.run.warm_up()
    derived = probed.derive()
    schemas = frozenset({"mbo"}) if played.schemas is None else played.schemas
    for schema in schemas & RTYPES.keys():
        record = np.zeros(1, DTYPES[RTYPES[schema]])
        record["rtype"] = RTYPES[schema]
        derived.follow(played, derived.schemas)
        derived.update(Batch.of(record))
        derived.close()
