"""`python -m mdtool`, the same as the `mdtool` command."""

from mdtool.cli.app import main

main()
