"""Trades and state in a PostgreSQL server, whose tables stand in a schema of their own.

A URL is one of libpq's, `postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?OPTIONS]`, and its
options may name the schema: `?schema=mdtool`.
"""

from mdtool.core.errors import ConfigError

try:
    import psycopg  # noqa: F401 - what the modules behind this one are made of
except ImportError as error:
    raise ConfigError(
        "a store in PostgreSQL wants its client: pip install 'mdtool[postgres]'"
    ) from error

from mdtool.adapters.stores.postgresql.history import History
from mdtool.adapters.stores.postgresql.store import Store

__all__ = ["History", "Store"]
