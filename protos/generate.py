"""Make the wire types from the .proto files: `python -m protos.generate`.

The generated modules are committed, so nothing is compiled at installation; `drift()` says where they no longer
match, and the checks before the tests call it. The compiler must be the one of the locked test set: stubs of a newer
one do not import beside the protobuf runtime that the product is locked to.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path("protos/chaotian/v1")


def generate(into: Path) -> list[Path]:
    """Compile every .proto file of `FOLDER` and write the modules under `into`; return their relative paths."""
    import grpc_tools
    from grpc_tools import protoc

    sources = sorted(str(path.relative_to(ROOT)) for path in (ROOT / FOLDER).glob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    # `-I ROOT` and paths from there: modules import each other as `from protos.chaotian.v1 import …`.
    arguments = [f"-I{ROOT}", f"-I{well_known}", f"--python_out={into}", f"--grpc_python_out={into}"]
    if protoc.main(["protoc", *arguments, *sources]) != 0:
        raise SystemExit("protoc refused the .proto files")
    return sorted(path.relative_to(into) for path in (into / FOLDER).glob("*_pb2*"))


def drift() -> list[str]:
    """Return the generated files that differ from what the .proto files give now: empty when all is well."""
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Path(folder))
        wrong = [
            str(path)
            for path in made
            if not (ROOT / path).is_file() or (ROOT / path).read_bytes() != (Path(folder) / path).read_bytes()
        ]
    stray = {path.relative_to(ROOT) for path in (ROOT / FOLDER).glob("*_pb2*")} - set(made)
    return sorted(wrong + [str(path) for path in stray])


def main(arguments: list[str]) -> int:
    """Write the modules, or with `--check` say which of them do not match their .proto files."""
    if arguments == ["--check"]:
        wrong = drift()
        sys.stdout.writelines(f"{name} does not match its .proto file: run `make protos`\n" for name in wrong)
        return 1 if wrong else 0
    if arguments:
        sys.stderr.write("usage: python -m protos.generate [--check]\n")
        return 2
    sys.stdout.writelines(f"{name}\n" for name in generate(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
