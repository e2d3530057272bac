"""The compiled gRPC descriptors are those of the source, and live beside other packages' ones."""

from __future__ import annotations

from fairlead.runtime.protocols import pb
from fairlead.runtime.protocols.compile_pb import is_stale


def test_the_compiled_descriptors_are_fresh():
    assert not is_stale(), "run python -m fairlead.runtime.protocols.compile_pb"


def test_kserves_own_messages_can_be_imported_beside_ours():
    from kserve.protocol.grpc import grpc_predict_v2_pb2

    theirs = grpc_predict_v2_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"1"])
    assert pb.ModelInferRequest.FromString(theirs.SerializeToString()).model_name == "m"
