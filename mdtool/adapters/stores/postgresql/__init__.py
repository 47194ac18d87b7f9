"""Stores in a PostgreSQL server, whose tables are in a schema of their own.

A URL is one of libpq's, `postgresql://[USER[:PASSWORD]@]HOST[:PORT]/DATABASE[?OPTIONS]`, and its
options may name the schema: `?schema=mdtool`.
"""

from mdtool.core.errors import ConfigError

try:
    import psycopg  # noqa: F401 - the modules below need it
except ImportError as error:
    raise ConfigError(
        "a store in PostgreSQL needs its client: pip install 'mdtool[postgres]'"
    ) from error

from mdtool.adapters.stores.postgresql.store import History, Store

__all__ = ["History", "Store"]
