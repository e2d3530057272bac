"""MLServer with the benchmark's two models: one process, no parallel workers, which on one core only cost.

Run as a script in an environment of its own (`_peers`): it imports the class that it is told of, so that stands here.
"""

from __future__ import annotations

import argparse
import asyncio
import socket

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Served(MLModel):
    """scikit-learn's classifier, or the mean of an image."""

    async def load(self) -> bool:
        if self.name == "image":
            self.function = lambda image: image.mean(axis=(2, 3))
        else:
            import skops.io

            self.function = skops.io.load(self.settings.parameters.uri).predict
        return True

    async def predict(self, payload):
        answer = self.function(NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("output-0", answer)])


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc_port", type=int)
    parser.add_argument("--model", required=True)
    options = parser.parse_args()
    settings = Settings(
        host="127.0.0.1",
        http_port=options.port,
        grpc_port=options.grpc_port or free_port(),
        metrics_port=free_port(),
        parallel_workers=0,
        debug=False,
    )
    models = [
        ModelSettings(name=name, implementation=Served, parameters={"uri": options.model}) for name in ("iris", "image")
    ]
    await MLServer(settings).start(models)


if __name__ == "__main__":
    asyncio.run(main())
