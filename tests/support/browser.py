"""A real browser without a window, where the machine has one."""

from __future__ import annotations

import contextlib

from mdtool.bench.browser import browser_tabs
from tests.support.requirements import needs


@contextlib.asynccontextmanager
async def chromium():
    """A tab of a browser that ends with the block."""
    async with chromium_tabs(1) as (tab,):
        yield tab


@contextlib.asynccontextmanager
async def chromium_tabs(count: int, *options: str):
    """Some tabs of one browser, which has further options and ends with the block."""
    async with browser_tabs(needs("chromium"), count, *options) as tabs:
        yield tabs
