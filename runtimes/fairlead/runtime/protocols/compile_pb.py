"""Compile open_inference.proto (needs grpcio-tools, a development dependency): `python -m fairlead.runtime.protocols.compile_pb`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "pb" / "open_inference.proto"
COMPILED = SOURCE.with_suffix(".binpb")


def compiled() -> bytes:
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / COMPILED.name
        arguments = ["protoc", f"-I{SOURCE.parent}", f"--descriptor_set_out={out}", str(SOURCE)]
        if protoc.main(arguments) != 0:
            raise SystemExit(f"{SOURCE.name} does not compile")
        return out.read_bytes()


def is_stale() -> bool:
    return not COMPILED.exists() or compiled() != COMPILED.read_bytes()


if __name__ == "__main__":
    if "--check" not in sys.argv:
        COMPILED.write_bytes(compiled())
    elif is_stale():
        raise SystemExit(f"{COMPILED.name} is not what {SOURCE.name} compiles to: run this without --check")
