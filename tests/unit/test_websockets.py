"""Close codes: the reference in docs/gateway.md is the one of the API's own documentation."""

from __future__ import annotations

from pathlib import Path

from mdtool.services.gateway.websockets import about_closing
from mdtool.wire.websocket import CloseCode

REFERENCE = Path(__file__).parents[2] / "docs" / "gateway.md"


def test_every_code_is_documented_in_both_places():
    text, about = REFERENCE.read_text("utf-8"), about_closing()
    table, pings = about.split("\n\n")
    assert table in text
    assert pings.split() == text[text.index("Clients are pinged") :].split()[: len(pings.split())]
    assert all(f"| {code} |" in about for code in CloseCode)
