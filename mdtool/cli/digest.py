"""`mdtool digest`: what a stream holds, as one number."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mdtool.cli.completion import one_of
from mdtool.cli.filter_options import FilterOptions, with_filter
from mdtool.cli.progress import Progress
from mdtool.core.errors import UsageError

if TYPE_CHECKING:
    from mdtool.engine.digest import RowDigest

app = typer.Typer(add_completion=False)

_KINDS: Final = ("trades", "books")


@app.command()
@with_filter
def digest(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="DBN files, folders or zips of them, a file of JSON lines, or - for stdin; or the "
            "URL of a store.",
        ),
    ],
    selected: FilterOptions,
    of: Annotated[
        str,
        typer.Option(
            help="trades; or books: the best ten levels of each book whenever they change.",
            autocompletion=one_of(_KINDS),
        ),
    ] = _KINDS[0],
    by: Annotated[
        str | None,
        typer.Option(
            help="symbol: a line for each symbol too.", autocompletion=one_of(("symbol",))
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("-J", "--json", help="One JSON object a line.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Show no progress.")] = False,
) -> None:
    """Print a digest of trades or of book states: equal for equal rows, however they came.

    Batches, transport, container and the order of rows do not count. Trades are their symbols,
    prices, sizes and exchange times, each once where a stream shows several views of them. Each
    line has the digest, the number of rows, and the symbol; the last line is of all together.

    Example: mdtool digest sample_data/trades.dbn.zst --by symbol

    Example: mdtool replay-dbn sample_data/mbo.dbn.zst | mdtool digest - --of books
    """
    from mdtool.services.digest import digest_books, digest_store, digest_trades

    if of not in _KINDS:
        raise UsageError(f"--of {of}: choose from {', '.join(_KINDS)}")
    if by not in {None, "symbol"}:
        raise UsageError(f"--by {by}: only by symbol")
    is_store = len(inputs) == 1 and "://" in inputs[0]
    selection = selected.selection()
    if is_store and (selection is not None or selected.schema or of != _KINDS[0]):
        raise UsageError("a store has trades, of which all are digested; leave out other options")
    if of != _KINDS[0] and selected.schema:
        raise UsageError("--schema: chooses among views of trades; leave it out for books")
    with Progress("rows", None, quiet) as progress:
        found: RowDigest
        if is_store:
            found = digest_store(inputs[0], progress.show)
        elif of == _KINDS[0]:
            found = digest_trades(inputs, selection, selected.schema, progress.show)
        else:
            found = digest_books(inputs, selection, progress.show)
    for each in [*(found.by_symbol() if by else []), found.total()]:
        if as_json:
            print(json.dumps(each._asdict()))
        else:
            print(f"{each.digest}  {each.rows:>12,}  {each.symbol or 'all'}")
