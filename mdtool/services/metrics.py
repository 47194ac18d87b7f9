"""Metrics of a service for Prometheus, at a port of their own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mdtool.core.config import load, setting
from mdtool.core.errors import MdtoolError

if TYPE_CHECKING:
    from aiohttp import web
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric


PATH: Final = "/metrics"
_ALIVE_PATH: Final = "/livez"
_READY_PATH: Final = "/readyz"
_OPENMETRICS: Final = "application/openmetrics-text"
_TEXT: Final = "text/plain"


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Settings of the metrics of services without HTTP, `[metrics]`."""

    host: str = setting(
        "127.0.0.1",
        f"Address on which each `metrics-port` listens; {PATH}, {_ALIVE_PATH} and {_READY_PATH} "
        "need no token.",
    )


def metrics_port() -> Any:
    """Return the setting of a service without HTTP."""
    return setting(
        None,
        f"Port of `[metrics] host` with metrics for Prometheus at {PATH}, 0 for any free one.",
        low=0,
        high=65535,
        example=9464,
    )


@contextlib.asynccontextmanager
async def metrics_served(
    port: int | None,
    *sources: Callable[[], Iterator[Metric]],
    is_ready: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Mapping[str, str]]:
    """Serve metrics within the block, and give their address, as `started` takes it.

    Parameters
    ----------
    port : int, optional
        None serves nothing, and gives no address.
    sources : callable
        Each yields families of the service, whenever it is scraped.
    is_ready : callable
        Whether the service may get traffic.

    Raises
    ------
    StartupError
        When the port is in use.
    """
    if port is None:
        yield {}
        return
    # Heavy: filters have the settings of services too, and few services have such a port.
    from aiohttp import web
    from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
    from prometheus_client.registry import Collector

    from mdtool.core.tcp import listen
    from mdtool.services import families
    from mdtool.services.http.listening import serving

    class Counted(Collector):
        def collect(self) -> Iterator[Metric]:
            yield families.accept_pauses()
            yield families.gauge("mdtool_loop_lag_seconds", lag.seconds)
            for source in sources:
                yield from source()

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(Counted())

    async def answer(request: web.Request) -> web.Response:
        return exposition(request, registry)

    async def alive(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def ready(_request: web.Request) -> web.Response:
        if is_ready():
            return web.json_response({"status": "ok"})
        return web.json_response({"status": "unavailable"}, status=503)

    app = web.Application()
    app.router.add_get(PATH, answer)
    app.router.add_get(_ALIVE_PATH, alive)
    app.router.add_get(_READY_PATH, ready)
    host = load(MetricsConfig, "metrics", {}).host
    async with families.LoopLag() as lag, serving(app) as server:
        listener = await listen(server, host, port, "--metrics-port")
        with contextlib.closing(listener):
            yield {"metrics": listener.address}


@contextlib.contextmanager
def metrics_in_thread(port: int | None, *sources: Callable[[], Iterator[Metric]]) -> Iterator[None]:
    """Serve metrics as `metrics_served`, in a thread: for commands without an event loop.

    Raises
    ------
    StartupError
        When the port is in use.
    """
    if port is None:
        yield
        return
    import asyncio
    import threading
    from concurrent.futures import Future

    stop: Future[Callable[[], object]] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            async with metrics_served(port, *sources):
                stop.set_result(lambda: loop.call_soon_threadsafe(ended.set))
                await ended.wait()
        except MdtoolError as error:
            stop.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="metrics", daemon=True)
    thread.start()
    try:
        end = stop.result()
        try:
            yield
        finally:
            end()
    finally:
        thread.join()


def exposition(request: web.Request, registry: CollectorRegistry) -> web.Response:
    """Answer with metrics: as OpenMetrics where the request prefers that, else as text."""
    from aiohttp import hdrs, web
    from prometheus_client.exposition import choose_encoder

    accept = ",".join(request.headers.getall(hdrs.ACCEPT, ())).lower()
    encode, content_type = choose_encoder(accept if _prefers_openmetrics(accept) else "")
    return web.Response(body=encode(registry), headers={"Content-Type": content_type})


def _prefers_openmetrics(accept: str) -> bool:
    """Return whether a header prefers OpenMetrics to text (RFC 9110, 12.5.1)."""
    quality = dict.fromkeys((_OPENMETRICS, _TEXT), 0.0)
    for media_range in accept.split(","):
        kind, *parameters = (part.strip() for part in media_range.split(";"))
        weights = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
        with contextlib.suppress(ValueError):
            weight = float(weights[0]) if weights else 1.0
            quality[kind] = max(weight, quality.get(kind, 0.0))
    return 0 < quality[_OPENMETRICS] >= quality[_TEXT]
