"""Make `protobuf_fields.json` from the kube-apiserver program: a Go program carries the descriptors of its messages, gzipped.

    python -m fairlead.local.apiserver.extract_protobuf /usr/local/bin/kube-apiserver

One message a line: `{number: [JSON name, type]}`. A type is a scalar (string, int, bool, double, bytes) or a message's name,
with `[]` before it if repeated, or `{}` if it is the value type of a map with string keys.
"""

from __future__ import annotations

import contextlib
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError

from .extract_schemas import KINDS

TARGET = Path(__file__).with_name("protobuf_fields.json")
PACKAGES = {
    "": "k8s.io.api.core.v1", "apps": "k8s.io.api.apps.v1", "discovery.k8s.io": "k8s.io.api.discovery.v1",
    "events.k8s.io": "k8s.io.api.events.v1", "coordination.k8s.io": "k8s.io.api.coordination.v1",
    "rbac.authorization.k8s.io": "k8s.io.api.rbac.v1", "authorization.k8s.io": "k8s.io.api.authorization.v1",
    "policy": "k8s.io.api.policy.v1",
}  # fmt: skip
META = "k8s.io.apimachinery.pkg.apis.meta.v1."


def descriptors(program: bytes) -> Iterator[FileDescriptorProto]:
    """The file descriptors in a Go program."""
    at = program.find(b"\x1f\x8b\x08")
    while at >= 0:
        with contextlib.suppress(zlib.error, DecodeError):
            yield FileDescriptorProto.FromString(zlib.decompressobj(31).decompress(program[at : at + 400_000]))
        at = program.find(b"\x1f\x8b\x08", at + 1)


_SCALARS = {
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_BOOL: "bool",
    FieldDescriptorProto.TYPE_BYTES: "bytes",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
}


def field_type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    name = field.type_name.removeprefix(".")
    entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    if entry := entries.get(name.rpartition(".")[2]):
        return "{}" + field_type(entry.field[1], entry)
    plain = name or _SCALARS.get(field.type, "int")
    return "[]" + plain if field.label == FieldDescriptorProto.LABEL_REPEATED else plain


def main(path: str) -> None:
    messages: dict[str, DescriptorProto] = {}
    for file in descriptors(Path(path).read_bytes()):
        messages.update({f"{file.package}.{message.name}": message for message in file.message_type})
    todo = [f"{PACKAGES[group]}.{kind}" for (group, _), kinds in KINDS.items() if group in PACKAGES for kind in kinds]
    todo += [
        "k8s.io.api.autoscaling.v1.Scale",
        "k8s.io.api.autoscaling.v2.HorizontalPodAutoscaler",
        META + "DeleteOptions",
    ]
    found: dict[str, dict[str, list[str]]] = {}
    while todo:
        name = todo.pop()
        if name in found or name not in messages:
            continue
        message = messages[name]
        found[name] = {str(f.number): [f.name, field_type(f, message)] for f in message.field}
        todo.extend(kind.lstrip("[]{}") for _, kind in found[name].values())
    lines = [f"{json.dumps(name)}: {json.dumps(fields)}" for name, fields in sorted(found.items())]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
