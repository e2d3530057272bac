"""The servers that ours is compared with: `python _servers.py bare|kserve|ray --port N --grpc_port N --model FILE`.

`bare` is the yardstick: what one writes by hand in twenty lines, with the fastest parts, one predict for each request.
The others are set up as their guides say; so are `_mlserver` and `_litserve`, which run in environments of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import numpy as np


def estimator(path: str):
    import skops.io

    return skops.io.load(path)


def mean(image):
    """What stands for a model that looks at images."""
    return image.mean(axis=(2, 3))


def bare(options: argparse.Namespace) -> None:
    import grpc
    import orjson
    import uvicorn

    model = estimator(options.model)

    async def app(scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = dict(scope["headers"])
        split = headers.get(b"inference-header-content-length")
        if split is None:
            tensor = orjson.loads(body)["inputs"][0]
            rows = np.array(tensor["data"], np.float64).reshape(tensor["shape"])
            answer = model.predict(rows)
            output = {"name": "output-0", "datatype": "INT64", "shape": list(answer.shape), "data": answer.tolist()}
        else:
            tensor = orjson.loads(body[: int(split)])["inputs"][0]
            answer = mean(np.frombuffer(body, np.float32, offset=int(split)).reshape(tensor["shape"]))
            output = {"name": "mean", "datatype": "FP32", "shape": list(answer.shape), "data": answer.ravel().tolist()}
        reply = orjson.dumps({"model_name": "iris", "outputs": [output]})
        fields = [(b"content-type", b"application/json"), (b"content-length", str(len(reply)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": reply})

    async def infer(request, context):
        tensor = request.inputs[0]
        dtype = np.float32 if tensor.datatype == "FP32" else np.float64
        rows = np.frombuffer(request.raw_input_contents[0], dtype).reshape(list(tensor.shape))
        answer = mean(rows) if rows.ndim == 4 else model.predict(rows)
        datatype = "FP32" if rows.ndim == 4 else "INT64"
        response = pb.ModelInferResponse(model_name=request.model_name)
        response.outputs.add(name="output-0", datatype=datatype, shape=answer.shape)
        response.raw_output_contents.append(answer.tobytes())
        return response

    async def main():
        if options.grpc_port:
            server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
            handler = grpc.unary_unary_rpc_method_handler(
                infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
            )
            server.add_registered_method_handlers(pb.SERVICE, {"ModelInfer": handler})
            server.add_insecure_port(f"127.0.0.1:{options.grpc_port}")
            await server.start()
        config = uvicorn.Config(
            app, port=options.port, loop="uvloop", http="httptools", log_level="warning", access_log=False
        )
        await uvicorn.Server(config).serve()

    if options.grpc_port:
        from fairlead.runtime.protocols import pb
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def kserve_server(options: argparse.Namespace) -> None:
    sys.argv = ["kserve", "--http_port", str(options.port), "--grpc_port", str(options.grpc_port or 1), "--enable_grpc"]
    sys.argv += [str(bool(options.grpc_port)).lower(), "--workers", "1"]
    import kserve

    class Served(kserve.Model):
        def __init__(self, name, function, datatype) -> None:
            super().__init__(name)
            self.function, self.datatype, self.ready = function, datatype, True

        def predict(self, payload, headers=None, response_headers=None):
            answer = self.function(payload.inputs[0].as_numpy())
            output = kserve.InferOutput("output-0", list(answer.shape), self.datatype)
            output.set_data_from_numpy(answer, binary_data=bool(payload.from_grpc))
            return kserve.InferResponse(payload.id or "0", self.name, [output])

    iris = Served("iris", estimator(options.model).predict, "INT64")
    kserve.ModelServer().start([iris, Served("image", mean, "FP32")])


def ray_default(options: argparse.Namespace) -> None:
    """Ray Serve as its guide starts: its proxy, a router, an actor call."""
    import ray
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Iris:
        def __init__(self, path: str) -> None:
            self.model = estimator(path)

        async def __call__(self, request: Request):
            tensor = (await request.json())["inputs"][0]
            answer = self.model.predict(np.array(tensor["data"], np.float64).reshape(tensor["shape"]))
            output = {"name": "output-0", "datatype": "INT64", "shape": list(answer.shape), "data": answer.tolist()}
            return {"model_name": "iris", "outputs": [output]}

    ray.init(num_cpus=1, include_dashboard=False, object_store_memory=78_643_200, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": options.port})
    serve.run(Iris.bind(options.model), route_prefix="/", blocking=True)


SERVERS = {"bare": bare, "kserve": kserve_server, "ray": ray_default}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=SERVERS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc_port", type=int)
    parser.add_argument("--model", required=True)
    chosen = parser.parse_args()
    SERVERS[chosen.kind](chosen)
