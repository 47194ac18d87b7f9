"""The settings of detectors, by pattern of symbols: `[detect."ES*"]`."""

from __future__ import annotations

from typing import Final

from mdtool.core.config import load, load_table, load_tables
from mdtool.engine.detect import DetectRule, Rules
from mdtool.services.alerts.config import DetectConfig

_SECTION: Final = "detect"


def load_rules() -> Rules:
    """Return the rules of the settings file.

    Raises
    ------
    ConfigError
        When a section or a setting is not valid.
    """
    load(DetectConfig, _SECTION, {})  # a setting of no pattern is one of the service
    tables = load_tables(_SECTION)
    return Rules({name: load_table(DetectRule, _SECTION, name, tables[name]) for name in tables})
