"""`mdtool tls`: certificates for development."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdtool.cli.options import CommandGroup
from mdtool.core.errors import OutputError, UsageError
from mdtool.core.units import NS_PER_S, parse_duration

app = typer.Typer(cls=CommandGroup, add_completion=False, no_args_is_help=True)

_CLIENT = "client"
_SERVER = "server"


@app.callback()
def tls() -> None:
    """Make certificates for encrypted connections between services and their clients.

    Example: mdtool tls dev certificates
    """


@app.command()
def dev(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files are written.")],
    host: Annotated[
        list[str] | None,
        typer.Option("--host", help="A further name or address of the server; may be repeated."),
    ] = None,
    client: Annotated[
        list[str] | None,
        typer.Option("--client", help="Name of a client's certificate; may be repeated."),
    ] = None,
    valid: Annotated[str, typer.Option("--valid", help="How long they are valid.")] = "90d",
) -> None:
    """Make a certificate authority, and certificates of localhost and of clients, for development.

    An authority that DIR has already signs new certificates in place of the old ones: services
    read them at once. What is printed is a settings file.

    Example: mdtool tls dev certificates > mdtool.toml

    Example: mdtool tls dev certificates --host md.example.com --client desk-7
    """
    import datetime as dt
    import json

    from mdtool.adapters.certificates import LOCAL_NAMES, Authority

    valid_for = dt.timedelta(seconds=parse_duration(valid) / NS_PER_S)
    names = client or [_CLIENT]
    for name in names:
        if name in {"ca", _SERVER} or not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"--client {name}: expects a name of letters, digits, - and _")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}") from error
    authority = Authority.read(folder)
    if authority is None:
        authority = Authority.make("mdtool development", max(valid_for, dt.timedelta(3650)))
        authority.write(folder)
    authority.issue(folder, _SERVER, [*LOCAL_NAMES, *(host or ())], valid_for)
    for name in names:
        authority.issue(folder, name, [name], valid_for)
    print("[tls]")
    for setting, file in (("cert", "server.pem"), ("key", "server.key"), ("ca", "ca.pem")):
        print(f"{setting} = {json.dumps(str(folder / file))}")
    print(f"# client-ca = {json.dumps(str(folder / 'ca.pem'))}  # clients must have a certificate")
