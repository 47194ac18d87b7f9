"""Write `mdtool/wire/_pb` from the `.proto` files; with --check, only compare."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).parent
PACKAGE = PROTO.parent / "mdtool" / "wire" / "_pb"
HEADER = '"""Generated from proto/ by proto/generate.py."""\n'


def generate(target: Path) -> None:
    """Write the package of generated modules into `target`."""
    sources = sorted(str(path.name) for path in PROTO.glob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTO}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            *sources,
        ]
    )
    if status:
        sys.exit("protoc failed")
    for path in target.glob("*_pb2*.py*"):
        text = path.read_text()
        for source in sources:
            module = source.removesuffix(".proto") + "_pb2"
            text = text.replace(
                f"\nimport {module} as", f"\nfrom mdtool.wire._pb import {module} as"
            )
        path.write_text(text)
    (target / "__init__.py").write_text(HEADER)


def main() -> None:
    """Generate, or compare what is committed with what would be generated."""
    if "--check" not in sys.argv:
        generate(PACKAGE)
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        for path in sorted(Path(folder).iterdir()):
            if (PACKAGE / path.name).read_bytes() != path.read_bytes():
                sys.exit(f"{path.name} is out of date: run python proto/generate.py")


if __name__ == "__main__":
    main()
