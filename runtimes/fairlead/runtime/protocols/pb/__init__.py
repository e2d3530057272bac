"""The gRPC messages, in a descriptor pool of their own.

The `kserve` and `tritonclient` packages each register a package `inference` in protobuf's default pool; a third one
there would be refused as soon as a user's model imports one of them. Hence no generated module: the compiled
descriptors (`open_inference.binpb`, made by `python -m fairlead.runtime.protocols.compile_pb`) are read into our pool.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"

POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    Path(__file__).with_name("open_inference.binpb").read_bytes()
).file:
    POOL.Add(_file)


def message(name: str) -> Any:
    """The class of the message `inference.{name}`."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"inference.{name}"))


ModelInferRequest = message("ModelInferRequest")
ModelInferResponse = message("ModelInferResponse")
ModelStreamInferResponse = message("ModelStreamInferResponse")
