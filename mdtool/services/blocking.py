"""Work that blocks, as a part of a service: in a thread of its own, ended with the service."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable


async def run_blocking(name: str, work: Callable[[], None], stop: Callable[[], None]) -> None:
    """Run `work` in a thread until it ends; when cancelled, stop it and wait for its end.

    Parameters
    ----------
    name : str
        What the thread is called.
    work : callable
        What it raises is raised here.
    stop : callable
        Has `work` end soon; it may be called at any time.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)

    def run() -> None:
        # Clients in C may raise what is no exception, and passes by what catches all.
        error: BaseException | None = RuntimeError(f"{name}: ended in the middle")
        try:
            work()
            error = None
        except BaseException as raised:  # noqa: BLE001 - it is raised in the loop's thread
            error = raised
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        await asyncio.shield(ended)
    finally:
        stop()
        await asyncio.to_thread(thread.join)
