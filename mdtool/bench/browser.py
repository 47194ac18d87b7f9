"""A real browser without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import aiohttp

from mdtool.core.errors import MdtoolError

OPTIONS: Final = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--force-color-profile=srgb",
)

_KEY_CODES: Final = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "/": 191}


class BrowserError(MdtoolError):
    """The browser failed, or the page has."""


class Tab:
    """One page, and its errors.

    Attributes
    ----------
    complaints : list of str
        What its console has.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._loaded: set[str] = set()
        self._parsed: set[str] = set()
        self._has_loaded = asyncio.Event()

    async def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        # The empty page that a tab begins with may be loaded only now.
        loader = (await self.send("Page.navigate", url=url))["loaderId"]
        while loader not in self._loaded:
            self._has_loaded.clear()
            await self._has_loaded.wait()

    @contextlib.asynccontextmanager
    async def leaving(self) -> AsyncIterator[None]:
        """Wait after the block until another page is there, whatever it still loads."""
        before = set(self._parsed)
        yield
        while self._parsed <= before:
            self._has_loaded.clear()
            await self._has_loaded.wait()

    async def resize(self, width: int, height: int = 800) -> None:
        """Show the page as on a screen of this size."""
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=True,
        )

    async def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        answer = await self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript condition holds.

        It is evaluated whenever the page changes, and ten times a second for what is not shown.
        """
        await self.run(
            f"""new Promise((resolve) => {{
                const look = () => {{
                    if ({condition}) {{
                        watch.disconnect();
                        clearInterval(timer);
                        resolve();
                    }}
                }};
                const watch = new MutationObserver(look);
                const timer = setInterval(look, 100);
                watch.observe(document, {{
                    subtree: true, childList: true, characterData: true, attributes: true,
                }});
                look();
            }})"""
        )

    async def text(self, selector: str) -> str:
        """Return the text of the first element that matches."""
        text: str = await self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return text

    async def click(self, selector: str) -> None:
        """Click the first element that matches, once a user could click it.

        It has stopped moving by then, and nothing covers it.
        """
        x, y = await self.run(
            f"""new Promise((resolve) => {{
                let before = "";
                const look = () => {{
                    const element = document.querySelector({json.dumps(selector)});
                    const box = element?.getBoundingClientRect();
                    const place = box && [box.x + box.width / 2, box.y + box.height / 2];
                    const isStill = place && String(place) === before;
                    if (isStill && element.contains(document.elementFromPoint(...place))) {{
                        resolve(place);
                    }} else {{
                        before = String(place);
                        setTimeout(look, 20);
                    }}
                }};
                look();
            }})"""
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.send(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1
            )

    async def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or names such as ArrowDown."""
        for key in keys:
            code = _KEY_CODES.get(key, ord(key[0].upper()))
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            for kind in ("keyDown", "keyUp"):
                await self.send(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=key,
                    text=text if kind == "keyDown" else "",
                    windowsVirtualKeyCode=code,
                )

    async def prefer(self, **features: str) -> None:
        """Set what media queries ask for, as `prefers_color_scheme="dark"`."""
        named = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        await self.send("Emulation.setEmulatedMedia", features=named)

    async def listen(self) -> None:
        """Handle the browser's messages until the page is closed; pending requests fail then."""
        async for message in self._socket:
            told = json.loads(message.data)
            if "id" in told:
                self._answers.pop(told["id"]).set_result(told)
            elif told["method"] == "Inspector.targetCrashed":
                break
            elif told["method"] == "Page.lifecycleEvent":
                pages = {"load": self._loaded, "DOMContentLoaded": self._parsed}
                if (of := pages.get(told["params"]["name"])) is not None:
                    of.add(told["params"]["loaderId"])
                    self._has_loaded.set()
            elif told["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(told["params"]["exceptionDetails"]))
            elif told["method"] == "Log.entryAdded":
                self.complaints.append(told["params"]["entry"]["text"])
        for answer in self._answers.values():
            answer.set_exception(BrowserError("the page has crashed, or was closed"))

    async def begin(self) -> None:
        """Have the browser send what `listen` handles."""
        for domain in ("Page", "Runtime", "Log", "Inspector"):
            await self.send(f"{domain}.enable")
        await self.send("Page.setLifecycleEventsEnabled", enabled=True)

    async def send(self, method: str, **params: object) -> dict[str, Any]:
        """Call a method of the DevTools protocol; return its result."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        told = await answer
        if "error" in told:
            raise BrowserError(f"{method}: {told['error']}")
        result: dict[str, Any] = told["result"]
        return result


@contextlib.asynccontextmanager
async def browser_tabs(program: str, count: int, *options: str) -> AsyncIterator[Sequence[Tab]]:
    """Run a browser, which has further options; yield tabs that end with the block.

    Parameters
    ----------
    program : str
        The path of a Chromium.
    count : int
    *options : str
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *(program, *OPTIONS, *options, f"--user-data-dir={profile}", "about:blank"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            devtools = await _devtools(process)
            async with contextlib.AsyncExitStack() as stack:
                session = await stack.enter_async_context(aiohttp.ClientSession(devtools))
                yield [await stack.enter_async_context(_tab(session)) for _ in range(count)]
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.communicate()


@contextlib.asynccontextmanager
async def _tab(session: aiohttp.ClientSession) -> AsyncIterator[Tab]:
    """Open a tab."""
    async with session.put("/json/new") as response:
        target = (await response.json())["webSocketDebuggerUrl"]
    async with session.ws_connect(target, max_msg_size=0) as socket:
        tab = Tab(socket)
        listening = asyncio.create_task(tab.listen())
        await tab.begin()
        yield tab
        listening.cancel()


async def _devtools(process: asyncio.subprocess.Process) -> str:
    """Return the address of a browser's DevTools."""
    assert process.stderr is not None
    said = b""
    while b"DevTools listening on " not in said:
        line = await process.stderr.readline()
        if not line:
            raise BrowserError(f"the browser has ended: {said.decode()}")
        said += line
    port = said.partition(b"ws://")[2].partition(b"/")[0].rpartition(b":")[2].decode()
    return f"http://127.0.0.1:{port}"
