"""A volume of a config map or a secret, whose files are replaced as Kubernetes does."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path


class Mounted:
    """A folder of links to the files of `..data`, a link to a folder that is replaced at once."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        folder.mkdir()
        self._folder = folder
        self._versions = 0
        self.replace(files)
        for name in files:
            (folder / name).symlink_to(f"..data/{name}")

    def __getitem__(self, name: str) -> str:
        return str(self._folder / name)

    def replace(self, files: Mapping[str, str]) -> None:
        """Replace all files at once."""
        data, new = self._folder / "..data", self._folder / "..data_tmp"
        before = data.resolve()
        self._versions += 1
        version = self._folder / f"..version_{self._versions}"
        version.mkdir()
        for name, text in files.items():
            (version / name).write_text(text)
        new.symlink_to(version.name)
        new.replace(data)
        if before != data:
            shutil.rmtree(before)
