"""The settings of detectors, by pattern of symbols."""

from __future__ import annotations

from typing import Final

from mdtool.core.config import load_table, load_tables
from mdtool.engine.detect import DetectRule, Rules

SECTION: Final = "detect"


def load_rules() -> Rules:
    """Return the rules of the settings file, such as `[detect."ES*"]`.

    Raises
    ------
    ConfigError
        When a section or a setting is not valid.
    """
    tables = load_tables(SECTION)
    return Rules({name: load_table(DetectRule, SECTION, name, tables[name]) for name in tables})
