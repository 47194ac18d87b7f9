"""The live view: frames of a feed on the whole terminal, and the keys that control it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from rich.text import Text

from mdtool.cli.live.drawing import Layout, draw
from mdtool.cli.live.feed import Feed
from mdtool.cli.live.frame import Frame, Observer
from mdtool.cli.live.playback import FLAT_OUT, REAL_TIME, Playback
from mdtool.cli.screen import ASCII, UNICODE, new_console

FRAMES_PER_S: Final = 20

_PLAYBACK_KEYS: Final[dict[bytes, Callable[[Playback, int], None]]] = {
    b" ": Playback.toggle_pause,
    b"s": Playback.step,
    b".": Playback.step,
    b"\x1b[C": Playback.step,
    b"+": Playback.faster,
    b"=": Playback.faster,
    b"\x1b[A": Playback.faster,
    b"-": Playback.slower,
    b"_": Playback.slower,
    b"\x1b[B": Playback.slower,
    b"1": lambda playback, now_ns: playback.set_speed(REAL_TIME, now_ns),
    b"0": lambda playback, now_ns: playback.set_speed(FLAT_OUT, now_ns),
}
_NEXT_KEYS: Final = {b"n": 1, b"\t": 1, b"p": -1, b"N": -1, b"\x1b[Z": -1}
_HELP_KEYS: Final = frozenset({b"h", b"?"})
_QUIT_KEYS: Final = frozenset({b"q", b"Q"})


class LiveView:
    """A `View` of a feed.

    Parameters
    ----------
    feed : Feed
        Not started yet.
    """

    frames_per_s = FRAMES_PER_S

    def __init__(self, feed: Feed) -> None:
        self.console = new_console()
        self.is_over = False
        self._glyphs = ASCII if self.console.options.ascii_only else UNICODE
        self._feed = feed
        self._observer = Observer(feed)
        self._is_help = False
        self._shown: tuple[Frame, Layout, bool] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Play the feed within the block."""
        self._feed.start()
        try:
            yield
        finally:
            self._feed.close()

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Pause the feed within the block, if it is playing."""
        is_playing = not self._feed.playback.is_paused
        if is_playing:
            self._toggle_pause()
        yield
        if is_playing:
            self._toggle_pause()

    def press(self, key: bytes) -> None:
        """Handle a key."""
        if key in _PLAYBACK_KEYS:
            with self._feed.held():
                _PLAYBACK_KEYS[key](self._feed.playback, time.monotonic_ns())
        elif key in _NEXT_KEYS:
            with self._feed.held():
                self._feed.show_next(_NEXT_KEYS[key])
        elif key in _HELP_KEYS:
            self._is_help = not self._is_help
        elif key in _QUIT_KEYS:
            self.is_over = True

    def draw(self, size: tuple[int, int], notice: str, *, is_due: bool) -> list[Text] | None:
        """Return the lines of the current frame, None when it is on the screen already."""
        layout = Layout.of(*size)
        with self._feed.held():
            if self._feed.crash is not None:
                raise self._feed.crash
            frame = self._observer.look(
                layout.depth, layout.prints, time.monotonic_ns(), time.time_ns(), notice
            )
        shown = (frame, layout, self._is_help)
        if shown == self._shown and not is_due:
            return None
        self._shown = shown
        return draw(frame, layout, self._glyphs, is_help=self._is_help)

    def _toggle_pause(self) -> None:
        with self._feed.held():
            self._feed.playback.toggle_pause(time.monotonic_ns())
