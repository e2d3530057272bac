"""The protocol's documents about servers and models, as plain objects that both doors send."""

from __future__ import annotations

from typing import Any

from fairlead.runtime.model import ModelMetadata, TensorSpec
from fairlead.runtime.repository import Entry, Repository
from fairlead.runtime.runner import Runner

SERVER_NAME = "fairlead"
EXTENSIONS = ("model_repository", "binary_tensor_data", "parameters", "statistics", "model_configuration", "generate")


def server_version() -> str:
    from importlib.metadata import version

    return version("fairlead")


def server() -> dict[str, Any]:
    return {"name": SERVER_NAME, "version": server_version(), "extensions": list(EXTENSIONS)}


def model(runner: Runner) -> dict[str, Any]:
    metadata = runner.contract.metadata
    document: dict[str, Any] = {
        "name": runner.model.name,
        "versions": list(Repository.versions(runner)),
        "platform": metadata.platform,
        "inputs": [_tensor(spec) for spec in metadata.inputs],
        "outputs": [_tensor(spec) for spec in metadata.outputs],
    }
    if metadata.parameters:
        document["parameters"] = dict(metadata.parameters)
    return document


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    item: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": shape_of(spec)}
    if spec.parameters:
        item["parameters"] = dict(spec.parameters)
    return item


def shape_of(spec: TensorSpec) -> list[int]:
    """V2 has no way to say "any shape"; one free dimension is the nearest."""
    return [-1] if spec.shape is None else list(spec.shape)


def config(runner: Runner) -> dict[str, Any]:
    """Triton's model configuration. Shapes are whole, so `max_batch_size` is 0: the batch dimension is in them."""
    metadata = runner.contract.metadata
    return {
        "name": runner.model.name,
        "platform": metadata.platform,
        "backend": metadata.platform,
        "max_batch_size": 0,
        "input": [_config_tensor(spec) for spec in metadata.inputs],
        "output": [_config_tensor(spec) for spec in metadata.outputs],
    }


def _config_tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": config_datatype(spec.datatype), "dims": shape_of(spec)}


def config_datatype(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"


def statistics(runner: Runner) -> dict[str, Any]:
    return {
        "name": runner.model.name,
        "version": runner.version or "",
        "last_inference": runner.last_inference_ms,
        "inference_count": runner.predictions,
        "execution_count": runner.executions,
        "inference_stats": {
            "success": {"count": runner.predictions, "ns": runner.success_ns},
            "fail": {"count": runner.failures, "ns": 0},
        },
    }


def index(entry: Entry) -> dict[str, Any]:
    version = entry.runner.version if entry.runner is not None else None
    return {"name": entry.name, "version": version or "1", "state": entry.state.value, "reason": entry.reason}


def example(metadata: ModelMetadata) -> dict[str, Any] | None:
    """A V2 request that fits the metadata, free dimensions being 1; None if nothing is declared."""
    if not metadata.inputs:
        return None
    inputs = []
    for spec in metadata.inputs:
        shape = [1 if length == -1 else length for length in (spec.shape or (1,))]
        count = 1
        for length in shape:
            count *= length
        if spec.optional or count > 4096 or spec.datatype in ("FP16", "BF16"):
            if spec.optional:
                continue
            return None
        value: Any = {"BYTES": "text", "BOOL": True}.get(spec.datatype, 0.5 if spec.datatype.startswith("FP") else 1)
        inputs.append({"name": spec.name, "shape": shape, "datatype": spec.datatype, "data": [value] * count})
    return {"inputs": inputs}
