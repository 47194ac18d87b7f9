"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real market data, named by MDTOOL_TEST_DATA."""
    folder = os.environ.get("MDTOOL_TEST_DATA")
    if not folder:
        pytest.skip("MDTOOL_TEST_DATA names no folder of real market data")
    return Path(folder)
