"""The units of deploy/systemd: valid, confined, and commands that run as they are written."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import MDTOOL, completed
from tests.support.requirements import needs
from tests.support.store_commands import held, put
from tests.support.supervised import FREE_PORTS, serve

UNITS = sorted((Path(__file__).parents[2] / "deploy" / "systemd").iterdir())
SERVICES = [unit for unit in UNITS if unit.suffix == ".service"]
MAX_EXPOSURE = {"mdtool": 20, "mdtool-backup": 10}
"""Of 100, as `systemd-analyze security` sums up what a service could still do."""
PROGRAM = "/opt/mdtool/bin/mdtool"

pytestmark = pytest.mark.usefixtures("no_settings")


def command(name, state):
    """The arguments of a unit's command, with the folder of its state."""
    [unit] = [unit for unit in SERVICES if unit.stem == name]
    [line] = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    program, *arguments = shlex.split(line.replace("%S", str(state)))
    assert program == PROGRAM
    return arguments


def test_units_are_valid(tmp_path):
    program = Path(sys.executable).parent / "mdtool"  # verified too
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, str(program)))
    verify = [needs("systemd-analyze"), "verify", "--man=no", *tmp_path.iterdir()]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.stem)
def test_services_are_confined(unit):
    threshold = f"--threshold={MAX_EXPOSURE[unit.stem]}"
    analyze = [needs("systemd-analyze"), "security", "--offline=true", threshold, unit]
    done = subprocess.run(analyze, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_commands_of_units_serve_and_copy(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    state = folder / "mdtool"
    (state / "backups").mkdir(parents=True)
    store = f"sqlite:///{state}/mdtool.db"
    put(store, ["ESZ5"], [(0, 10**9, 1, 10**18)])
    _, *stack = command("mdtool", folder)
    with serve(*stack, *FREE_PORTS) as services:
        services.heard("aggregate: ready on")
        backup = command("mdtool-backup", folder)
        done = subprocess.run([*MDTOOL, *backup], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert held(f"sqlite:///{state}/backups/mdtool.db") == held(store)
        # A second stack on the volume of the first.
        monkeypatch.setenv("MDTOOL_STOP_WITHIN_S", "0.1")
        second = completed("serve", *stack, *FREE_PORTS)
        assert second.returncode == 3
        assert b"is in use by process" in second.stderr
