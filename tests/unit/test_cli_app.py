"""The `mdtool` command as a whole: exit statuses, error lines, help, and what it imports."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import typer

from mdtool.cli.app import COMMANDS
from mdtool.cli.options import with_settings
from mdtool.core import errors
from mdtool.core.errors import MdtoolError
from mdtool.services.send.config import SendConfig
from tests.support.processes import ChildProcess

pytestmark = pytest.mark.usefixtures("no_settings")

SAMPLES = Path(__file__).parents[2] / "sample_data"

HEAVY = {"numba", "pyarrow", "grpc", "aiohttp", "pandas", "databento"}
"""What `mdtool --help` must not import."""

PROBE = """
import sys, types, typer
from mdtool.cli import app as mdtool
from mdtool.core import errors

probe = types.ModuleType("probe")
probe.app = typer.Typer()

@probe.app.command()
def command(number: int = 0) -> int | None:
    {body}

sys.modules["probe"] = probe
mdtool.COMMANDS["probe"] = "probe"
mdtool.main()
"""
"""Runs `mdtool` with one more subcommand, whose body a test chooses."""

ERRORS = [
    value for value in vars(errors).values() if isinstance(value, type) and value is not MdtoolError
]


def mdtool(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "mdtool", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def start_probe(body, *arguments, before=()):
    return ChildProcess(
        [sys.executable, "-c", PROBE.format(body=body), *before, "probe", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_probe(body, *arguments, before=()):
    """Return the exit status, stdout and stderr."""
    with start_probe(body, *arguments, before=before) as process:
        out, err = process.communicate()
        return process.returncode, out, err


def command_of(name):
    """Return the click command of a subcommand."""
    return typer.main.get_command(importlib.import_module(COMMANDS[name]).app)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_each_error_is_one_line_and_its_own_status(error):
    arguments = ", ".join(
        ["'f.dbn'", "12", "3", "'cut'"] if error is errors.CorruptStreamError else ["'what, where'"]
    )
    status, out, err = run_probe(f"raise errors.{error.__name__}({arguments})")
    assert status == error.exit_code
    assert out == ""
    assert re.fullmatch(r"mdtool: .+\n", err)


@pytest.mark.parametrize(("returned", "status"), [("None", 0), ("0", 0), ("7", 7)])
def test_what_a_command_returns_is_its_status(returned, status):
    assert run_probe(f"return {returned}") == (status, "", "")


def test_an_unforeseen_error_is_one_line_too():
    assert run_probe("raise ValueError('odd')") == (
        1,
        "",
        "mdtool: internal error: ValueError: odd\n",
    )


def test_debug_shows_the_traceback():
    status, _, err = run_probe("raise errors.InputError('what')", before=["--debug"])
    assert status == 1
    assert err.startswith("Traceback")
    assert err.endswith("mdtool: what\n")


def test_ctrl_c_ends_quietly_with_130():
    with start_probe("print('running', flush=True); import time; time.sleep(60)") as process:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


def test_ctrl_c_during_the_first_imports_ends_quietly_with_130(tmp_path):
    slow = "print('importing', flush=True); import time; time.sleep(60)"
    (tmp_path / "typer.py").write_text(slow)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    with ChildProcess(
        [sys.executable, "-m", "mdtool", "--help"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, "", "")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("[print('x' * 100) for _ in range(100_000)]; return 0", id="while writing"),
        pytest.param("print('first'); sys.stdin.read(); return 0", id="at the last flush"),
    ],
)
def test_a_reader_that_has_enough_ends_a_command_quietly(body):
    with ChildProcess(
        [sys.executable, "-c", PROBE.format(body=body), "probe"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize(
    "arguments", [["--help"], ["replay-dbn", "--help"], ["--version"]], ids=" ".join
)
def test_a_reader_that_has_enough_of_the_help_is_no_failure(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "mdtool", *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "nosuch"),
        (["probe", "--nosuch"], "mdtool probe --help"),
        (["probe", "--number", "x"], "--number"),
        (["probe", "surplus"], "surplus"),
        (["--log-format", "xml", "probe"], "text, json"),
        (["--log-level", "loud", "probe"], "debug, info, warning, error"),
    ],
)
def test_wrong_usage_is_status_2_and_says_what(arguments, message):
    process = subprocess.run(
        [sys.executable, "-c", PROBE.format(body="return 0"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert re.fullmatch(r"mdtool: .+\n", process.stderr)
    assert message in process.stderr


@pytest.mark.parametrize("name", ["serve-tcp", "aggregate", "gateway", "send", "serve"])
def test_an_unknown_key_in_the_settings_file_is_status_2(name, tmp_path):
    (tmp_path / "mdtool.toml").write_text(f"[{name}]\nno-such-key = 1\n")
    arguments = ["all"] if name == "serve" else []
    done = mdtool(name, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"mdtool: mdtool.toml: [{name}] no-such-key: no such setting")
    assert done.stderr.count("\n") == 1


def test_a_settings_file_that_is_named_is_the_one_that_counts(tmp_path):
    (tmp_path / "other.toml").write_text("[serve-tcp]\nno-such-key = 1\n")
    done = mdtool("--config", "other.toml", "serve-tcp")
    assert done.returncode == 2
    assert done.stderr.startswith("mdtool: other.toml: [serve-tcp] no-such-key")


LOGGING = "import logging; logging.getLogger('probe').warning('told')"


def test_how_log_lines_look_is_a_setting(tmp_path, monkeypatch):
    (tmp_path / "mdtool.toml").write_text("[log]\nformat = 'json'\nlevel = 'error'\n")
    assert run_probe(LOGGING) == (0, "", "")
    monkeypatch.setenv("MDTOOL_LOG_LEVEL", "info")
    assert json.loads(run_probe(LOGGING)[2])["message"] == "told"
    assert run_probe(LOGGING, before=["--log-format", "text"])[2].endswith("WARNING told\n")


@pytest.mark.parametrize("line", ["formta = 'json'", "format = 'xml'", "level = 1"])
def test_wrong_settings_of_the_log_are_status_2_for_every_command(line, tmp_path):
    (tmp_path / "mdtool.toml").write_text(f"[log]\n{line}\n")
    status, out, err = run_probe("return 0")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"mdtool: .+\n", err)


def test_help_is_there_for_those_whose_settings_are_wrong(tmp_path):
    (tmp_path / "mdtool.toml").write_text("[nosuch]\n")
    assert mdtool("gateway", "--help").returncode == 0
    assert mdtool("simulate").returncode == 2


def test_the_version_is_that_of_the_package():
    done = mdtool("--version")
    assert (done.returncode, done.stdout) == (0, f"mdtool {metadata.version('mdtool')}\n")


def test_help_lists_every_command():
    done = mdtool("--help")
    assert done.returncode == 0
    listed = re.findall(r"^│ ([a-z][a-z-]*) ", done.stdout, re.MULTILINE)
    assert listed == list(COMMANDS)


def test_without_a_command_the_help_is_shown():
    done = mdtool()
    assert (done.returncode, done.stderr) == (2, "")
    assert "Usage: mdtool" in done.stdout


def test_help_imports_nothing_heavy():
    script = f"""
import sys
from mdtool.cli.app import main
sys.argv = ["mdtool", "--help"]
try:
    main()
except SystemExit:
    print("imported", sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported []"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_gives_an_example_of_it(name):
    assert re.search(rf"^ *Example: .*\bmdtool {name}\b", command_of(name).help, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_says_what_it_does(name):
    silent = [p.name for p in command_of(name).params if not getattr(p, "help", None)]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_told_by_their_whole_names_on_a_terminal_of_80_columns(name):
    narrow = {**os.environ, "COLUMNS": "80", "TERMINAL_WIDTH": "80"}
    told = set(re.findall(r"--[a-z0-9-]+", mdtool(name, "--help-all", env=narrow).stdout))
    shown = [p for p in command_of(name).params if p.param_type_name == "option" and not p.hidden]
    assert {flag for p in shown for flag in p.opts if flag.startswith("--")} <= told


@pytest.mark.parametrize("name", COMMANDS)
def test_what_help_texts_have_in_brackets_is_shown(name):
    commands = {(name,): command_of(name)}
    subcommands = getattr(commands[name,], "commands", {})
    commands |= {(name, sub): command for sub, command in subcommands.items()}
    wide = {**os.environ, "COLUMNS": "400", "TERMINAL_WIDTH": "400"}
    for path, command in commands.items():
        texts = [command.help, *(getattr(each, "help", "") for each in command.params)]
        inside = {part for text in texts for part in re.findall(r"\[[^\[\]]+\]", text or "")}
        if inside:
            shown = mdtool(*path, "--help-all", env=wide).stdout
            assert {part for part in inside if " ".join(part.split()) not in shown} == set()


@pytest.mark.parametrize(
    ("flags", "value"),
    [([], None), (["--plain"], True), (["--no-plain"], False)],
)
def test_a_setting_can_be_turned_on_and_off(flags, value, monkeypatch):
    monkeypatch.setenv("MDTOOL_SEND_PLAIN", "true" if value is False else "false")
    seen = []
    app = typer.Typer()

    @app.command()
    @with_settings(SendConfig, "send")
    def command(config: SendConfig) -> None:
        seen.append(config.plain)

    app(flags, standalone_mode=False)
    assert seen == [bool(value)]


def test_only_the_flag_that_changes_something_is_shown():
    for name, shown, hidden in [
        ("send", "plain", "no_plain"),
        ("gateway", "no_graphql_introspection", "graphql_introspection"),
    ]:
        is_hidden = {p.name: p.hidden for p in command_of(name).params if hasattr(p, "hidden")}
        assert (is_hidden[shown], is_hidden[hidden]) == (False, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gatway"], "gatway: no such command; did you mean 'gateway'?"),
        (["token", "nwe"], "token nwe: no such command; did you mean 'new'?"),
        (["watch", "--zzz"], "--zzz: no such option (see mdtool watch --help)"),
        (["gateway", "--prot", "9"], "--prot: no such option; did you mean --port?"),
        (["serve", "all", "--port", "9"], "--port: no such option; did you mean --gateway-port?"),
        (
            ["replay-dbn", "--format", "json"],
            "--format: no such option; did you mean --json or --csv or --dbn?",
        ),
        (["info", "--file", "x"], "--file: no such option; give INPUT without an option"),
        (["watch", "--port", "9"], "--port: no such option; give HOST:PORT|URL without an option"),
        (
            ["gateway", "--log-level", "debug"],
            "--log-level: no such option; it precedes the command: mdtool --log-level ... gateway",
        ),
        (["store", "chek"], "chek: no such file; did you mean `store check`?"),
        (["bench", "fanuot"], "bench fanuot: no such bench; did you mean 'fanout'?"),
        (["serve", "al"], "serve al: no such services; did you mean 'all'?"),
        (["config", "gatewy"], "gatewy: no such section; did you mean 'gateway'?"),
    ],
)
def test_what_is_mistyped_gets_the_nearest_name(arguments, message):
    done = mdtool(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mdtool: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("mdtool gat", ["gateway"]),
        ("mdtool bench fan", ["fanout"]),
        ("mdtool replay-dbn --clock ts_e", ["ts_event"]),
        ("mdtool replay-dbn --schema mbp", ["mbp-1", "mbp-10"]),
        ("mdtool serve to", ["together"]),
        ("mdtool serve all --only vwap,g", ["vwap,gateway"]),
        ("mdtool gateway --proxy-header f", ["forwarded"]),
        ("mdtool replay-dbn {}/trades.dbn.zst --symbols AAPL,A", ["AAPL,AMZN"]),
        ("mdtool book {}/mbo.dbn.zst --symbols G", ["GOOG"]),
        ("mdtool book missing.dbn --symbols G", []),
    ],
)
def test_completion_offers_values(words, offered):
    line = words.format(SAMPLES)
    variables = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "_MDTOOL_COMPLETE": "complete_bash",
    }
    done = mdtool(env=os.environ | variables)
    assert sorted(done.stdout.split()) == offered


def test_help_leaves_advanced_settings_to_help_all():
    short, whole = (mdtool("serve", flag).stdout for flag in ("--help", "--help-all"))
    assert "--processes" in short
    assert "--help-all shows the advanced settings too" in short
    assert "--serve-tcp-host" not in short
    assert "--serve-tcp-host" in whole


@pytest.mark.parametrize(
    ("command", "options"),
    [("live-gateway", ["--speed", "--at-end", "--rebase", "--keys"]), ("ingest", ["--keys"])],
)
def test_help_shows_common_settings(command, options):
    shown = mdtool(command, "--help", env={**os.environ, "COLUMNS": "200"}).stdout
    assert [option for option in options if f"{option} " in shown] == options
