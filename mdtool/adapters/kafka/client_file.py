"""How to prove oneself to Kafka: settings of its client in a file, as Kafka's own tools take them.

The names are librdkafka's. The file holds what a command line and a URL had better not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mdtool.core.errors import ConfigError

_TAKEN: Final = ("security.", "sasl.", "ssl.", "enable.ssl.", "client.rack", "broker.address.")
"""What the settings begin with that are for the user: what makes mdtool exact is its own."""
_COMMENTS: Final = ("#", "!")


def read_client_file(path: str) -> dict[str, str]:
    """Return the settings in a file of lines `key=value`; empty lines and comments are none.

    Raises
    ------
    ConfigError
        When it cannot be read, or a line is none or not for the user to set. Values, which may be
        secret, are not told.
    """
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text") from error
    settings = {}
    for number, line in enumerate(map(str.strip, lines), start=1):
        if not line or line.startswith(_COMMENTS):
            continue
        key, equals, value = line.partition("=")
        key = key.strip()
        if not equals:
            raise ConfigError(f"{path}, line {number}: wants key=value")
        if not key.startswith(_TAKEN):
            raise ConfigError(
                f"{path}, line {number}: {key} is not for this file, which takes "
                f"{', '.join(f'{each}*' if each.endswith('.') else each for each in _TAKEN)}"
            )
        settings[key] = value.strip()
    return settings
