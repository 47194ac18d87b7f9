"""`mdtool token`: API keys made, listed and revoked, and any token checked."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mdtool.adapters.identity.config import TOKEN_VARIABLE
from mdtool.cli.options import CommandGroup
from mdtool.core.config import did_you_mean, load, load_tables
from mdtool.core.errors import CheckError, InputError, UsageError
from mdtool.core.permissions import Principal, Roles
from mdtool.core.units import NS_PER_S, format_time, parse_duration

app = typer.Typer(cls=CommandGroup, add_completion=False, no_args_is_help=True)

_KEYS = typer.Option("--keys", help="File of API keys; by default the setting [auth] keys.")
_JSON = typer.Option("-J", "--json", help="One JSON object a line.")


@app.callback()
def token() -> None:
    """Make, list, revoke and check the tokens by which clients of services authenticate.

    Example: mdtool token new desk-7 --role trader --keys keys.jsonl
    """


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    role: Annotated[
        list[str] | None, typer.Option("--role", help="A role of [roles.NAME]; may be repeated.")
    ] = None,
    valid: Annotated[
        str | None, typer.Option("--valid", help="How long it is valid, such as 30d; or for ever.")
    ] = None,
    keys: Annotated[Path | None, _KEYS] = None,
) -> None:
    """Make an API key and print it. Nothing else ever has it: the file has its digest only.

    Example: mdtool token new desk-7 --role trader --valid 90d > desk-7.token
    """
    from mdtool.adapters.identity.api_keys import ApiKey, add

    path, roles = _path(keys), Roles(load_tables("roles"))
    for each in role or ():
        if each not in roles:
            if not [*roles]:
                raise UsageError(f"--role {each}: no such role; the settings need [roles.{each}]")
            raise UsageError(f"--role {each}: no such role{did_you_mean(each, roles)}")
    valid_s = None if valid is None else parse_duration(valid) // NS_PER_S
    key, text = ApiKey.make(name, role or (), valid_s)
    add(path, key)
    print(text)
    print(f"{path}: added key {key.id} of {key.name}", file=sys.stderr)


@app.command("list")
def list_(
    keys: Annotated[Path | None, _KEYS] = None, as_json: Annotated[bool, _JSON] = False
) -> None:
    """List API keys: their ids, names and roles, and when they were made and expire.

    Example: mdtool token list --keys keys.jsonl
    """
    from mdtool.adapters.identity.api_keys import ApiKeys

    rows: list[dict[str, Any]] = [
        {
            "id": key.id,
            "name": key.name,
            "roles": list(key.roles),
            "created": _time(key.created_s),
            "expires": _time(key.ends_s),
        }
        for key in ApiKeys(str(_existing(keys)))
    ]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    for row in rows:
        name, ends = row["name"], row["expires"] or "never"
        print(f"{row['id']}  {name}  {','.join(row['roles']) or '-'}  {row['created']}  {ends}")


@app.command()
def revoke(
    chosen: Annotated[str, typer.Argument(metavar="ID|NAME", help="A key, or all keys of a name.")],
    keys: Annotated[Path | None, _KEYS] = None,
) -> None:
    """Revoke API keys: services close the connections that use them within five seconds.

    Example: mdtool token revoke desk-7 --keys keys.jsonl
    """
    from mdtool.adapters.identity import api_keys

    path = _existing(keys)
    revoked = api_keys.revoke(path, chosen)
    if not revoked:
        raise InputError(f"{chosen:.80}: no such key in {path}; see mdtool token list")
    for key in revoked:
        print(f"revoked {key.id} of {key.name}")


@app.command()
def check(
    file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            help=f"File with the token; by default {TOKEN_VARIABLE}, else standard input.",
        ),
    ] = None,
    symbol: Annotated[
        str | None, typer.Option("--symbol", help="Also say what it may do with a symbol.")
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Say whom a token names and until when it is valid, by the settings [auth] and [roles].

    The exit status is 1 where it is not valid. No token is ever an argument, which other users
    of the machine can read.

    Example: mdtool token check --token-file desk-7.token --symbol AAPL
    """
    principal = _principal(_token(file))
    access = principal.access
    report: dict[str, Any] = {
        "principal": principal.name,
        "quota": principal.quota or "default",
        "expires": _time(principal.expires_s),
    }
    if symbol is not None:
        from mdtool.services.gateway.table import TABLE

        readers = {name: access.reader(name) for name in TABLE}
        report["reads"] = [
            name for name, reader in readers.items() if reader is None or reader.can_read(symbol)
        ]
        report["writes"] = access.can_write(symbol)
    if as_json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        shown = ", ".join(value) or "nothing" if isinstance(value, list) else value
        print(f"{name}: {'never' if value is None else shown}")


def _principal(text: str) -> Principal:
    import asyncio

    from mdtool.adapters.identity.authenticator import Authenticator
    from mdtool.adapters.identity.config import AuthConfig
    from mdtool.adapters.identity.errors import TokenError

    authenticator = Authenticator(load(AuthConfig, "auth", {}), Roles(load_tables("roles")))
    try:
        return asyncio.run(authenticator.authenticate_now(text))
    except TokenError as error:
        raise CheckError(str(error)) from error


def _token(file: Path | None) -> str:
    if file is not None:
        try:
            return file.read_text("ascii").strip()
        except (OSError, UnicodeError) as error:
            raise InputError(f"{file}: cannot be read as a token: {error}") from error
    return (os.environ.get(TOKEN_VARIABLE) or sys.stdin.readline()).strip()


def _path(keys: Path | None) -> Path:
    from mdtool.adapters.identity.config import AuthConfig

    found = keys or load(AuthConfig, "auth", {}).keys
    if not found:
        raise UsageError("--keys: missing; name a file, or set [auth] keys")
    return Path(found)


def _existing(keys: Path | None) -> Path:
    path = _path(keys)
    if not path.is_file():
        raise InputError(f"{path}: no such file; make a key by mdtool token new")
    return path


def _time(time_s: float) -> str | None:
    return None if math.isinf(time_s) else format_time(int(time_s) * NS_PER_S)
