"""LitServe with the benchmark's classifier, taking V2's JSON. It speaks neither binary tensors nor gRPC.

Run as a script in an environment of its own (`_peers`). Its API server and its worker are two processes, as always.
"""

from __future__ import annotations

import argparse

import litserve
import numpy as np

PATH = "/v2/models/iris/infer"


class Iris(litserve.LitAPI):
    def __init__(self, model: str) -> None:
        super().__init__(api_path=PATH)
        self.file = model

    def setup(self, device: str) -> None:
        import skops.io

        self.model = skops.io.load(self.file)

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.array(tensor["data"], np.float64).reshape(tensor["shape"])

    def predict(self, rows):
        return self.model.predict(rows)

    def encode_response(self, answer):
        output = {"name": "output-0", "datatype": "INT64", "shape": list(answer.shape), "data": answer.tolist()}
        return {"model_name": "iris", "outputs": [output]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    server = litserve.LitServer(Iris(options.model), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=options.port, num_api_servers=1, log_level="warning", generate_client_file=False)
