"""Sources that commands take trades from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdtool.core.errors import InputError

if TYPE_CHECKING:
    from mdtool.adapters.dbn_source import RecordSource


def require_trades(source: RecordSource) -> None:
    """Refuse a source whose schema has no trades.

    Raises
    ------
    InputError
    """
    from mdtool.core.records import has_trades
    from mdtool.wire.dbn_records import DTYPES, RTYPES

    schema = source.metadata.schema
    if schema is not None and not has_trades(DTYPES[RTYPES[str(schema)]]):
        raise InputError(
            f"{source.name}: is {schema}, which has no trades; give mbo, trades, tbbo or mbp"
        )
