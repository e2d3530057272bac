"""One gRPC inference with tritonclient, in a process of its own: its descriptors and kserve's cannot live in one process.

python grpc_infer.py ADDRESS AUTHORITY MODEL COLUMNS   ->  the first output as JSON
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import triton_to_np_dtype


def main(address: str, authority: str, model: str, columns: str) -> None:
    with triton.InferenceServerClient(address, channel_args=[("grpc.default_authority", authority)]) as client:
        declared = client.get_model_metadata(model).inputs[0]
        tensor = triton.InferInput(declared.name, [1, int(columns)], declared.datatype)
        tensor.set_data_from_numpy(np.zeros((1, int(columns)), dtype=triton_to_np_dtype(declared.datatype)))
        answer = client.infer(model, [tensor])
        print(json.dumps(answer.as_numpy(answer.get_response().outputs[0].name).tolist()))


if __name__ == "__main__":
    main(*sys.argv[1:])
