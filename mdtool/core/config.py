"""Settings: flag > environment > mdtool.toml > default.

A service declares its settings once, as the fields of a frozen dataclass made by `setting`. These
are its command-line options, its `MDTOOL_*` variables, its section of `mdtool.toml` and its
defaults.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from mdtool.core.addresses import dial_address, dialled, parse_address
from mdtool.core.errors import ConfigError

T = TypeVar("T")

CONFIG_FILE = "mdtool.toml"
CONFIG_VARIABLE = "MDTOOL_CONFIG"
SECTIONS = frozenset(
    {
        "aggregate",
        "audit",
        "auth",
        "book",
        "connect",
        "detect",
        "gateway",
        "ingest",
        "live-gateway",
        "log",
        "metrics",
        "replay-dbn",
        "send",
        "serve",
        "serve-tcp",
        "stop",
        "store",
        "tls",
        "trace",
        "vwap",
    }
)
TABLES: Final = frozenset({"detect", "quotas", "roles", "tls"})
"""Sections of named sections, such as `[roles.desk]`. Those of SECTIONS have settings besides."""
_PREFIX: Final = "MDTOOL_"
_OF_FILE: Final = "_file"
"""The end of a variable that names a file with the value: secrets are mounted as files."""
_held: dict[str, object] | None = None
"""What files had, by variable, and the settings file's; None where files are read each time."""
_NO_SETTINGS: Final = frozenset(
    {CONFIG_VARIABLE, "MDTOOL_KAFKA", "MDTOOL_MONGODB", "MDTOOL_TEST_DATA", "MDTOOL_TOKEN"}
)
"""Variables that are of no section."""
_MOST_WORDS: Final = 2
"""Of a section's name."""
_LINK: Final = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?$"
)
_LINK_URL: Final = re.compile(r"(tcp|udp|sctp)://")
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on"}), frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Peer:
    """The service that a setting is the address of.

    Its address is read from its own section, `[aggregate] host` and `port`, and from that of
    `serve all`, `[serve] aggregate-port`, which goes before.
    """

    section: str
    port: str = "port"
    """The name of the setting of its port."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The value of a setting, and what gave it: a flag, a variable, a place in the file."""

    value: Any
    origin: str


DEFAULT: Final = "default"
"""The origin of a value that nothing gave."""


def setting(
    default: Any,
    help_text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    formerly: str | None = None,
    peer: Peer | None = None,
    example: Any = None,
    offered: tuple[str, ...] = (),
    is_common: bool = False,
) -> Any:
    """Return a dataclass field that is a setting.

    Parameters
    ----------
    default : object
    help_text : str
        One sentence.
    low, high : float, optional
        The inclusive range.
    choices : tuple of str
        The only values; empty for any.
    formerly : str, optional
        An earlier name, under which the setting can still be given.
    peer : Peer, optional
        The service whose address, host or port this is by default.
    example : object
        A value for the sample of all settings, of a setting that has none by default.
    offered : tuple of str
        Names that completion offers, of a list separated by commas.
    is_common : bool
        Whether the help text shows it among the first.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help_text,
            "low": low,
            "high": high,
            "choices": choices,
            "formerly": formerly,
            "peer": peer,
            "example": example,
            "offered": offered or choices,
            "is_common": is_common,
        },
    )


def load(cls: type[T], section: str, flags: Mapping[str, object]) -> T:
    """Return the settings of `section`.

    Parameters
    ----------
    cls : type
        A frozen dataclass whose fields were made by `setting`.
    section : str
        The name of the command: `[serve-tcp]` in the file, `MDTOOL_SERVE_TCP_*` in the
        environment.
    flags : mapping
        The options of the command line, by field name; None means that it was not given.

    Raises
    ------
    ConfigError
        For an unknown key, a value of the wrong type or out of its range, or a file that is not
        TOML.
    """
    return cls(**{name: given.value for name, given in origins(cls, section, flags).items()})


def origins(cls: type, section: str, flags: Mapping[str, object]) -> dict[str, Origin]:
    """Return the value and the origin of each setting of `section`, as `load` has it.

    Raises
    ------
    ConfigError
        As `load` does.
    """
    values = {field.name: _fallback(field) for field in dataclasses.fields(cls)}
    values |= _from_file(cls, section) | _from_environment(cls, section)
    for name, value in flags.items():
        if value is not None:
            current, flag = _current_name(cls, name), "--" + name.replace("_", "-")
            values[current] = Origin(_in_range(cls, current, value, flag), flag)
    return values


def load_tables(name: str) -> Mapping[str, Any]:
    """Return the named sections of one of TABLES, as the file has them: `[roles.desk]` as `desk`.

    Raises
    ------
    ConfigError
        When the file is not TOML.
    """
    table = _table(name)[0]
    if name in SECTIONS:
        return {key: value for key, value in table.items() if isinstance(value, dict)}
    return table


def section_place(name: str, key: str) -> str:
    """Return the file and the name of one named section, `[NAME.KEY]`, for a message."""
    path = _table(name)[1]
    return f"[{name}.{key}]" if path is None else f"{path}: [{name}.{key}]"


def load_table(cls: type[T], name: str, key: str, given: object) -> T:
    """Return the settings of one named section, `[NAME.KEY]`.

    Raises
    ------
    ConfigError
        As `load` does.
    """
    section = section_place(name, key)
    if not isinstance(given, dict):
        raise ConfigError(f"{section}: expects a section of its own")
    types = field_types(cls)
    values = {}
    for written, value in given.items():
        field = written.replace("-", "_")
        where = f"{section} {written}"
        if field not in types:
            raise ConfigError(f"{where}: no such setting{_nearest(written, types)}")
        values[field] = _in_range(cls, field, _typed(types[field], value, where), where)
    return cls(**values)


def peer_address(peer: Peer, default: str) -> str:
    """Return the address of a service by the settings, where they give one, else `default`.

    Raises
    ------
    ConfigError
        When a value has the wrong type.
    """
    return str(_address(peer, default).value)


def peer_switch(section: str, name: str) -> bool:
    """Return whether the settings of a service turn a switch on that is off by default.

    Raises
    ------
    ConfigError
        When the value has the wrong type.
    """
    found = _given(section, name, bool)
    return found is not None and bool(found.value)


def range_of(field: dataclasses.Field[Any]) -> str:
    """Return the range of a setting in words, empty where it has none."""
    if choices := field.metadata["choices"]:
        return " or ".join(choices)
    low, high = field.metadata["low"], field.metadata["high"]
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"from {low} to {high}"


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Read each file of settings once within the block, whatever becomes of it meanwhile.

    A service reads settings as it connects and stops, too. A volume of Kubernetes replaces its
    files under it, and new settings of one part do not fit old ones of the others.

    Raises
    ------
    ConfigError
        As `load` does, for the settings file.
    """
    global _held  # noqa: PLW0603 - a process has one environment, and so one set of settings
    before, _held = _held, {}
    try:
        _once("", _settings)
        yield
    finally:
        _held = before


def config_file() -> Path | None:
    """Return the settings file in force: `MDTOOL_CONFIG`, else `./mdtool.toml`, else None.

    Raises
    ------
    ConfigError
        When `MDTOOL_CONFIG` names a file that does not exist.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    path = Path(named or CONFIG_FILE)
    if path.is_file():
        return path
    if named:
        raise ConfigError(f"{CONFIG_VARIABLE}={named}: no such file")
    return None


def field_types(cls: type) -> dict[str, type]:
    """Return the type of each setting, without `| None`."""
    hints = typing.get_type_hints(cls)
    return {field.name: _plain(hints[field.name]) for field in dataclasses.fields(cls)}


def variable(section: str, name: str) -> str:
    """Return the environment variable of a setting."""
    return f"MDTOOL_{section}_{name}".upper().replace("-", "_")


def stray_variables() -> dict[str, str]:
    """Return the variables that look like settings but are of no section, and a hint for each."""
    strays = sorted(
        key
        for key, text in os.environ.items()
        if key.startswith(_PREFIX)
        and key not in _NO_SETTINGS
        and _section_of(key) is None
        and not _is_service_link(key, text)
    )
    return {key: _nearest_variable(key) for key in strays}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the nearest one, else all."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(sorted(known))}"


def _nearest(key: str, fields: Iterable[str]) -> str:
    """Return `did_you_mean` of the keys of settings as files have them."""
    return did_you_mean(key.replace("_", "-"), [field.replace("_", "-") for field in fields])


def _fallback(field: dataclasses.Field[Any]) -> Origin:
    """Return the value of a setting that is not given itself."""
    peer: Peer | None = field.metadata["peer"]
    default: Any = field.default
    if peer is None:
        return Origin(default, DEFAULT)
    if ":" in str(default):
        return _address(peer, default)
    found = _of_peer(peer, "host", str) if type(default) is str else _of_peer(peer, peer.port, int)
    if found is None:
        return Origin(default, DEFAULT)
    return Origin(dialled(found.value), found.origin) if type(default) is str else found


def _address(peer: Peer, default: str) -> Origin:
    """Return the address of a peer: what is given of it, else of the default."""
    host, port = parse_address(default)
    given = [_of_peer(peer, "host", str), _of_peer(peer, peer.port, int)]
    sources = [found.origin for found in given if found]
    if not sources:
        return Origin(default, DEFAULT)
    named, numbered = given
    address = dial_address(named.value if named else host, numbered.value if numbered else port)
    return Origin(address, ", ".join(sources))


def _of_peer(peer: Peer, name: str, kind: type) -> Origin | None:
    """Return a setting of a peer, as `serve all` or its own section gives it."""
    prefix = peer.section.replace("-", "_")
    for section, key in (("serve", f"{prefix}_{name}"), (peer.section, name)):
        found = _given(section, key, kind)
        if found is not None and found.value != 0:  # port 0 is any free one
            return found
    return None


def _given(section: str, name: str, kind: type) -> Origin | None:
    """Return what the environment, else the file, gives a setting of any section."""
    key = variable(section, name)
    text = os.environ.get(key)
    if text is not None and not _is_service_link(key, text):
        return Origin(_parse(kind, text, key), key)
    table, path = _table(section)
    for written, value in table.items():
        if written.replace("-", "_") == name:
            where = _place(path, section, written)
            return Origin(_typed(kind, value, where), where)
    return None


def _place(path: Path | None, section: str, key: str) -> str:
    return f"{path}: [{section}] {key}"


def _table(section: str) -> tuple[dict[str, Any], Path | None]:
    """Return a section of the settings file, empty where it has none, and the file."""
    content, path = _once("", _settings)
    table = content.get(section, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {section} must be a section, [{section}]")
    return table, path


def _settings() -> tuple[dict[str, Any], Path | None]:
    """Return the sections of the settings file, none where there is no file, and the file."""
    path = config_file()
    if path is None:
        return {}, None
    try:
        content = tomllib.loads(path.read_text("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    for name in content:
        if name not in SECTIONS | TABLES:
            raise ConfigError(f"{path}: no section [{name}]{did_you_mean(name, SECTIONS | TABLES)}")
    return content, path


def _once(key: str, read: Callable[[], T]) -> T:
    """Return what `read` does; where settings are held, what it did the first time."""
    if _held is None:
        return read()
    if key not in _held:
        _held[key] = read()
    return cast("T", _held[key])


def _typed(kind: type, value: Any, where: str) -> Any:
    """Return a value of the file as a setting's type."""
    typed = float(value) if kind is float and type(value) is int else value
    if type(typed) is not kind:
        raise ConfigError(f"{where}: expects {kind.__name__}, not {value!r}")
    return typed


def _from_file(cls: type, section: str) -> dict[str, Origin]:
    table, path = _table(section)
    fields = field_types(cls)
    values = {}
    for key, value in table.items():
        if section in TABLES and isinstance(value, dict):
            continue
        name = _current_name(cls, key.replace("-", "_"))
        where = _place(path, section, key)
        if name not in fields:
            raise ConfigError(f"{where}: no such setting{_nearest(key, fields)}")
        typed = _typed(fields[name], value, where)
        values[name] = Origin(_in_range(cls, name, typed, where), where)
    return values


def _from_environment(cls: type, section: str) -> dict[str, Origin]:
    fields = field_types(cls)
    values = {}
    for key, text in os.environ.items():
        if _section_of(key) != section or _is_service_link(key, text):
            continue
        name = _current_name(cls, key.removeprefix(variable(section, "")).lower())
        of_file = _current_name(cls, name.removesuffix(_OF_FILE))
        if name not in fields and name.endswith(_OF_FILE) and of_file in fields:
            if variable(section, of_file) in os.environ:
                raise ConfigError(f"{key} and {variable(section, of_file)}: give one of them")
            name, given = of_file, _once(key, functools.partial(_content, key, text))
        else:
            given = text
        if name not in fields:
            known = [variable(section, field) for field in fields]
            raise ConfigError(f"{key}: no such setting{did_you_mean(key, known)}")
        values[name] = Origin(_in_range(cls, name, _parse(fields[name], given, key), key), key)
    return values


def _content(key: str, path: str) -> str:
    """Return the line of the file that a variable names."""
    try:
        return Path(path).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise ConfigError(f"{key}={path}: {reason}") from error


def _section_of(key: str) -> str | None:
    """Return the section of a variable: MDTOOL_SERVE_TCP_PORT is of `serve-tcp`, not `serve`."""
    fitting = [section for section in SECTIONS if key.startswith(variable(section, ""))]
    return max(fitting, key=len, default=None)


def _nearest_variable(key: str) -> str:
    """Return a hint of which variable was meant, empty where none is near."""
    words = key.removeprefix(_PREFIX).split("_")
    sections = {section.upper().replace("-", "_"): section for section in SECTIONS}
    for count in range(min(len(words) - 1, _MOST_WORDS), 0, -1):
        if close := difflib.get_close_matches("_".join(words[:count]), sections, n=1):
            return f"; did you mean {_PREFIX}{close[0]}_{'_'.join(words[count:])}?"
    return ""


def _is_service_link(key: str, text: str) -> bool:
    """Return whether Kubernetes set a variable, for a service of its own called `mdtool-SECTION`.

    Source: "Discovering services" in Kubernetes' documentation; Docker's links have the same form.
    """
    is_url = key.endswith("_PORT") and _LINK_URL.match(text)
    return bool(is_url or _LINK.search(key))


def _current_name(cls: type, name: str) -> str:
    """Return the name of the setting that had this name formerly, else the name itself."""
    fields = dataclasses.fields(cls)
    return next((field.name for field in fields if field.metadata["formerly"] == name), name)


def _parse(kind: type, text: str, where: str) -> object:
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ConfigError(f"{where}: expects true or false, not {text!r}")
    try:
        return kind(text)
    except ValueError as error:
        raise ConfigError(f"{where}: expects {kind.__name__}, not {text!r}") from error


def _in_range(cls: type, name: str, value: Any, where: str) -> Any:
    field = next(field for field in dataclasses.fields(cls) if field.name == name)
    low, high = field.metadata["low"], field.metadata["high"]
    choices = field.metadata["choices"]
    is_inside = (low is None or value >= low) and (high is None or value <= high)
    if not is_inside or (choices and value not in choices):  # nan is outside
        raise ConfigError(f"{where}: {value!r} is not {range_of(field)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value!r} is not a finite number")
    return value


def _plain(hint: Any) -> type:
    if isinstance(hint, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return typing.cast("type", hint)
