"""Commands of a user without account, home or rights, on a machine whose root is read-only."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping
from typing import Final

from tests.support.requirements import missing

STRANGER: Final = 54_321
"""An id that the system has no account for."""
_CONFINED: Final = f"""
mount -o remount,ro,bind / &&
exec setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups \\
    --inh-caps +dac_read_search --ambient-caps +dac_read_search "$@"
"""
"""The user may read all files, as Python and its packages may be another's, and writes none."""


def confined() -> tuple[str, ...]:
    """Return what stands before a command to confine it, or skip the test."""
    around = ("unshare", "--mount", "sh", "-c", _CONFINED, "sh")
    if not _is_possible(around):
        missing("this user may not change mounts and users")
    return around


@functools.cache
def _is_possible(around: tuple[str, ...]) -> bool:
    try:
        return not subprocess.run([*around, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


def homeless(**others: str) -> Mapping[str, str]:
    """Return an environment that names no home, and nothing but a path and what is given."""
    return {"PATH": os.environ["PATH"], **others}
