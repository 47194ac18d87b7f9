"""Stores in a MongoDB server: a database each, which nothing else writes.

A URL is one of MongoDB's, `mongodb://[USER[:PASSWORD]@]HOST[:PORT][,...]/DATABASE[?OPTIONS]`,
or with `mongodb+srv` and the one name by which DNS has the hosts.
"""

from mdtool.core.errors import ConfigError

try:
    import pymongo  # noqa: F401 - the modules below need it
except ImportError as error:
    raise ConfigError(
        "a store in MongoDB needs its client: pip install 'mdtool[mongodb]'"
    ) from error

from mdtool.adapters.stores.mongodb.store import History, Store

__all__ = ["History", "Store"]
