"""Close codes: each of them has a meaning, and is documented."""

from __future__ import annotations

from pathlib import Path

from mdtool.services.gateway.closing import MEANINGS, CloseCode

PAGE = Path(__file__).parents[2] / "docs" / "gateway.md"


def test_every_code_is_documented():
    assert set(MEANINGS) == set(CloseCode)
    page = PAGE.read_text("utf-8")
    for code in CloseCode:
        assert f"| {code.value} | " in page
