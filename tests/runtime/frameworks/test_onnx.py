"""ONNX models: what the graph says is what is declared, and nothing outside the directory is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks import LoadOptions, load
from fairlead.runtime.frameworks.onnxfile import OnnxFile
from fairlead.runtime.model import Model
from fairlead.runtime.tensors import InferRequest, Tensor

X, Y = load_iris(return_X_y=True)
X32 = X.astype(np.float32)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


def served(proto: Any, path: Path, **options: Any) -> Model:
    (path / "model.onnx").write_bytes(proto.SerializeToString())
    model = load(path, "m", LoadOptions(**options))
    model.load()
    return model


def graph(nodes: list[Any], inputs: Any, outputs: Any, initializers: Any = (), opsets: Any = ()) -> Any:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        list(initializers),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17), *opsets], ir_version=9)


IDENTITY = [helper.make_node("Identity", ["x"], ["y"])]


def weights(location: str) -> Any:
    tensor = helper.make_tensor("W", TensorProto.FLOAT, [2, 2], np.eye(2, dtype=np.float32).tobytes(), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    node = helper.make_node("MatMul", ["x", "W"], ["y"])
    return graph([node], [("x", TensorProto.FLOAT, ["n", 2])], [("y", TensorProto.FLOAT, ["n", 2])], [tensor])


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("estimator", [LogisticRegression(max_iter=1000), RandomForestClassifier(10, random_state=0)])
def test_a_converted_classifier_answers_as_onnx_runtime_does(estimator: Any, zipmap: bool, tmp_path: Path) -> None:
    proto = to_onnx(estimator.fit(X, Y), X32[:1], options={"zipmap": zipmap})
    model = served(proto, tmp_path)
    labels, probabilities = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"X": X32})
    if zipmap:
        probabilities = np.array([[row[label] for label in estimator.classes_] for row in probabilities], np.float32)
    answer = model.predict(InferRequest([Tensor("X", X32)]))
    assert answer.outputs[0].data.tobytes() == labels.tobytes()
    assert answer.outputs[1].data.tobytes() == probabilities.tobytes()
    assert (answer.outputs[1].datatype, answer.outputs[1].shape) == ("FP32", (150, 3))
    assert model.batchable


def test_labels_that_are_text_are_bytes(tmp_path: Path) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(X, NAMES)
    model = served(to_onnx(estimator, X32[:1]), tmp_path)
    label = model.predict(InferRequest([Tensor("X", X32[:1])])).outputs[0]
    assert (label.datatype, label.data.tolist()) == ("BYTES", [b"setosa"])


def test_text_goes_in_as_bytes(tmp_path: Path) -> None:
    model = served(graph(IDENTITY, [("x", TensorProto.STRING, ["n"])], [("y", TensorProto.STRING, ["n"])]), tmp_path)
    answer = model.predict(InferRequest([Tensor("x", np.array(["Zürich".encode(), b""], dtype=object))]))
    assert answer.outputs[0].data.tolist() == ["Zürich".encode(), b""]


def test_the_metadata_is_the_graphs(tmp_path: Path) -> None:
    model = served(to_onnx(LogisticRegression(max_iter=1000).fit(X, Y), X32[:1], options={"zipmap": False}), tmp_path)
    metadata = model.metadata()
    assert metadata.platform == "onnxruntime_onnx"
    assert [(spec.name, spec.datatype, spec.shape) for spec in metadata.inputs] == [("X", "FP32", (-1, 4))]
    assert [(spec.name, spec.datatype, spec.shape) for spec in metadata.outputs] == [
        ("label", "INT64", (-1,)),
        ("probabilities", "FP32", (-1, 3)),
    ]
    assert metadata.parameters["producer"] == "skl2onnx"


@pytest.mark.parametrize(
    ("inputs", "outputs", "batchable"),
    [
        (["n", 2], ["n", 2], True),
        (["n", 2], [None, 2], True),
        ([1, 2], [1, 2], False),
        (["n", 2], ["m", 2], False),
        (["n", 2], [3, 2], False),
    ],
)
def test_rows_are_independent_only_if_the_graph_leaves_their_number_free(
    inputs: Any, outputs: Any, batchable: bool, tmp_path: Path
) -> None:
    proto = graph(IDENTITY, [("x", TensorProto.FLOAT, inputs)], [("y", TensorProto.FLOAT, outputs)])
    assert served(proto, tmp_path).batchable is batchable


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "link/weights.bin"])
def test_weights_outside_the_directory_are_refused(location: str, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(16))
    (directory / "link").symlink_to(tmp_path)
    with pytest.raises(
        LoadError, match=f"takes its weights from '{location}', which is outside its directory; refused"
    ):
        served(weights(location), directory)


def test_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "model.onnx").symlink_to(tmp_path / "model.onnx")
    served(weights("weights.bin"), tmp_path)
    model = load(linked, "m")
    model.load()
    rows = np.ones((3, 2), np.float32)
    assert model.predict(InferRequest([Tensor("x", rows)])).outputs[0].data.tolist() == rows.tolist()


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"takes its weights from 'w\.bin', which is not beside it"):
        served(weights("w.bin"), tmp_path)


def test_operators_of_a_foreign_library_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ops.so").write_bytes(b"\x7fELF")
    nodes = [helper.make_node("Foo", ["x"], ["y"], domain="my.ops")]
    value = (TensorProto.FLOAT, ["n", 2])
    proto = graph(nodes, [("x", *value)], [("y", *value)], opsets=[helper.make_opsetid("my.ops", 1)])
    with pytest.raises(
        LoadError, match=r"my\.ops:Foo.*libraries of custom operators are native code and are not loaded"
    ):
        served(proto, tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08"])
def test_a_file_that_is_no_onnx_says_so(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(LoadError, match=r"model\.onnx is not a whole ONNX file: "):
        load(tmp_path, "m").load()


def test_a_file_that_was_cut_off_says_so(tmp_path: Path) -> None:
    whole = to_onnx(LogisticRegression(max_iter=1000).fit(X, Y), X32[:1]).SerializeToString()
    for length in range(1, len(whole), 97):
        (tmp_path / "model.onnx").write_bytes(whole[:length])
        with pytest.raises(LoadError):
            load(tmp_path, "m").load()


def test_what_the_reader_finds_is_what_the_onnx_package_finds(tmp_path: Path) -> None:
    proto = to_onnx(RandomForestClassifier(3).fit(X, Y), X32[:1], options={"zipmap": False})
    entry = proto.metadata_props.add()
    entry.key, entry.value = "trained", "today"
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    read = OnnxFile.read(path)
    assert (read.producer, read.ir_version) == (proto.producer_name, proto.ir_version)
    assert read.opsets == {opset.domain: opset.version for opset in proto.opset_import}
    assert read.properties == {"trained": "today"}
    assert [tuple(value) for value in read.inputs] == [("X", "FP32", (-1, 4))]
    assert [value.name for value in read.outputs] == [value.name for value in onnx.load(path).graph.output]


def test_an_input_that_no_protocol_carries_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"input 'x' is a tensor\(bfloat16\), which no protocol can carry"):
        served(graph(IDENTITY, [("x", TensorProto.BFLOAT16, ["n"])], [("y", TensorProto.BFLOAT16, ["n"])]), tmp_path)
