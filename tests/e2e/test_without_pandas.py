"""Files of columns, written and read without pandas, which is long to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.commands import output_of

SAMPLE = Path(__file__).parents[2] / "sample_data" / "trades.dbn.zst"
WITHOUT_PANDAS = """
import sys
from mdtool.__main__ import main

sys.argv = ["mdtool", *sys.argv[1:]]
try:
    main()
finally:
    assert "pyarrow" in sys.modules
    assert "pandas" not in sys.modules
"""


def test_files_of_columns_are_written_and_read_without_pandas(tmp_path):
    store = f"sqlite:///{tmp_path}/s.db"
    output_of("store", SAMPLE, "--store", store)
    for arguments in (
        ["replay-dbn", SAMPLE, "-p", "-s", "-o", tmp_path / "r.parquet"],
        ["replay-dbn", SAMPLE, "-o", tmp_path / "r.arrow"],
        ["store", "export", tmp_path / "t.parquet", "--store", store],
        ["store", "export", tmp_path / "t.csv", "--store", store],
        ["store", "import", tmp_path / "t.parquet", "--store", store],
        ["store", "import", tmp_path / "t.csv", "--store", store],
    ):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_PANDAS, *arguments], capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, b""), arguments
