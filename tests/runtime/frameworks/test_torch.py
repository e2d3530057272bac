"""PyTorch models answer as in Python; files whose loading would run code are refused before it does."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from safetensors.torch import save_file
    from torch.export import Dim, export

from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks import LoadOptions, load, pt2
from fairlead.runtime.model import Model
from fairlead.runtime.tensors import InferRequest, InferResponse, Tensor

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Net(torch.nn.Module):
    def __init__(self, features: int = 4) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(features, 3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.linear(x) + self.shift, -1)


class Pair(torch.nn.Module):
    def forward(self, a: torch.Tensor, *, b: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"sum": a + b, "first": torch.cat([a, b])[: a.shape[0]]}


ROWS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Net, Path]:
    net = Net().eval()
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    program = export(net, (torch.zeros(2, 4),), dynamic_shapes={"x": {0: Dim("batch")}})
    torch.export.save(program, path)
    return net, path


def served(path: Path, **options: Any) -> Model:
    model = load(path, "m", LoadOptions(threads=1, **options))
    model.load()
    return model


def ask(model: Model, **inputs: Any) -> InferResponse:
    answer = model.predict(InferRequest([Tensor(name, value) for name, value in inputs.items()]))
    assert isinstance(answer, InferResponse)
    return answer


def expected(net: torch.nn.Module, rows: Any) -> Any:
    with torch.inference_mode():
        return net(torch.from_numpy(rows)).numpy()


def test_an_exported_program_answers_bit_for_bit(exported: tuple[Net, Path]) -> None:
    net, path = exported
    model = served(path)
    rows = ROWS.copy()
    rows.flags.writeable = False
    output = ask(model, x=rows).outputs[0]
    assert (output.datatype, output.shape) == ("FP32", (5, 3))
    assert output.data.tobytes() == expected(net, ROWS).tobytes()


def test_an_exported_programs_graph_is_its_metadata(exported: tuple[Net, Path]) -> None:
    model = served(exported[1])
    metadata = model.metadata()
    assert [(spec.name, spec.datatype, spec.shape) for spec in metadata.inputs] == [("x", "FP32", (-1, 4))]
    assert [(spec.name, spec.datatype, spec.shape) for spec in metadata.outputs] == [("softmax", "FP32", (-1, 3))]
    assert model.batchable


def test_inputs_go_where_the_program_takes_them(tmp_path: Path) -> None:
    a, b = torch.ones(2, 3), torch.full((2, 3), 2.0)
    torch.export.save(export(Pair(), (a,), {"b": b}), tmp_path / "model.pt2")
    model = served(tmp_path)
    assert [spec.name for spec in model.inputs] == ["a", "b"]
    assert not model.batchable
    by_name = {output.name: output.data for output in ask(model, b=b.numpy(), a=a.numpy()).outputs}
    assert [value.tolist() for value in by_name.values()] == [[[3.0] * 3] * 2, [[1.0] * 3] * 2]


def rewritten(
    path: Path, target: Path, change: Callable[[str, bytes], bytes], extra: dict[str, bytes] | None = None
) -> Path:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as sink:
        for name in source.namelist():
            sink.writestr(name, change(name, source.read(name)))
        for name, content in (extra or {}).items():
            sink.writestr(name, content)
    return target


def pickled_code(trace: Path, directory: Path) -> bytes:
    class Malicious:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {trace}",)

    torch.save((Malicious(),), directory / "evil")
    return (directory / "evil").read_bytes()


def test_code_in_the_pickles_of_an_exported_program_is_refused_before_it_runs(
    exported: tuple[Net, Path], tmp_path: Path
) -> None:
    trace = tmp_path / "it-ran"
    evil = pickled_code(trace, tmp_path)
    path = rewritten(
        exported[1], tmp_path / "model.pt2", lambda name, content: evil if "sample_inputs" in name else content
    )
    with pytest.raises(LoadError) as raised:
        served(path)
    assert not trace.exists()
    assert "a pickle in 'model/data/sample_inputs/model.pt' that imports posix.system" in str(raised.value)
    assert "fairlead.dev/allow-pickle" in str(raised.value)
    with pytest.raises(LoadError):
        served(path, allow_pickle=True)
    assert trace.exists(), "the test's file is harmless: it proves nothing"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Symbol('s77', positive=True, integer=True)", "__import__('os').system('true')", "that is not arithmetic"),
        ("Symbol('s77', positive=True, integer=True)", "().__class__", "that is not arithmetic"),
        ("Symbol('s77', positive=True, integer=True)", "s77.real", "that is not arithmetic"),
        ("torch.ops.aten.linear.default", "torch.os.system", "an operator 'torch.os.system'"),
        ("torch.ops.aten.linear.default", "torch.load", "an operator 'torch.load'"),
        ("torch.ops.aten.linear.default", "torch.ops.aten.from_file.default", "an operator"),
        ("torch.ops.aten.linear.default", "_operator.methodcaller", "an operator"),
        ('"type\\": \\"builtins.dict', '"type\\": \\"collections.defaultdict', "arguments that are not plain"),
        ('"guards_code": []', "\"guards_code\": [\"__import__('os').system('true')\"]", "does more than compare sizes"),
        ('"forward_arg_names": ["x"]', '"forward_arg_names": ["x=print(1)"]', "a name 'x=print"),
        ('"name": "x"', '"name": "x=print(1)"', "a name 'x=print"),
    ],
)
def test_code_in_the_text_of_an_exported_program_is_refused(
    old: str, new: str, says: str, exported: tuple[Net, Path], tmp_path: Path
) -> None:
    changed = []

    def change(name: str, content: bytes) -> bytes:
        text = content.replace(old.encode(), new.encode())
        changed.append(text != content)
        return text

    path = rewritten(exported[1], tmp_path / "model.pt2", change)
    assert any(changed)
    with pytest.raises(LoadError, match=f"more in it than data, .*{says}"):
        served(path)


def test_compiled_code_in_an_exported_program_is_refused(exported: tuple[Net, Path], tmp_path: Path) -> None:
    extra = {"model/data/aotinductor/model/model.so": b"\x7fELF"}
    path = rewritten(exported[1], tmp_path / "model.pt2", lambda _, content: content, extra)
    with pytest.raises(LoadError, match=r"an entry 'model/data/aotinductor/model/model\.so' \(compiled code"):
        served(path)


def test_what_an_honest_export_holds_is_only_data(tmp_path: Path) -> None:
    batch, length = Dim("batch"), Dim("length", min=2, max=64)
    layers = torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3, padding=1),
        torch.nn.BatchNorm1d(4),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool1d(2),
        torch.nn.Flatten(),
    ).eval()
    program = export(layers, (torch.zeros(3, 2, 8),), dynamic_shapes={"input": {0: batch, 2: length}})
    torch.export.save(program, tmp_path / "model.pt2")
    assert pt2.complaint(tmp_path / "model.pt2") is None
    assert served(tmp_path).metadata().inputs[0].shape == (-1, 2, -1)


def test_sizes_that_are_tied_to_each_other_are_only_data(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.reshape(x.shape[0], -1, 2).sum(-1) + y[: x.shape[0]]

    program = export(
        Tied(), (torch.zeros(3, 8), torch.zeros(9, 4)), dynamic_shapes={"x": {0: Dim("n")}, "y": {0: Dim("m")}}
    )
    torch.export.save(program, tmp_path / "model.pt2")
    assert pt2.complaint(tmp_path / "model.pt2") is None
    served(tmp_path)


@pytest.mark.parametrize(
    ("guard", "honest"),
    [
        ("L['x'].size()[0] % 8 == 0", True),
        ("L['x'].size()[0] >= 2 and Max(L['y'].size()[1], 3) <= 128", True),
        ("L['x'].__class__ == 0", False),
        ("exec('1')", False),
        ("L['x; import os'] == 1", False),
        ("(lambda: 1)() == 1", False),
        ("[c for c in L] == 1", False),
        ("L['x'].size(", False),
    ],
)
def test_a_guard_may_compare_sizes_and_no_more(guard: str, honest: bool) -> None:
    assert pt2._is_guard(guard) is honest


def test_a_pickled_module_is_refused_unless_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trace = tmp_path / "it-ran"
    (tmp_path / "model.pt").write_bytes(pickled_code(trace, tmp_path))
    with pytest.raises(
        LoadError, match=r"model\.pt is saved by torch\.save, a pickle, and loading it runs whatever code"
    ):
        served(tmp_path)
    assert not trace.exists()
    net = Net().eval()
    torch.save(net, tmp_path / "model.pt")
    with caplog.at_level(logging.WARNING):
        model = served(tmp_path, allow_pickle=True)
    assert "model.pt is unpickled, as allowed" in caplog.text
    assert ask(model, x=ROWS).outputs[0].data.tobytes() == expected(net, ROWS).tobytes()


@pytest.mark.parametrize("kind", ["safetensors", "state_dict"])
def test_weights_are_put_into_the_class_that_is_named(kind: str, tmp_path: Path) -> None:
    net = Net(features=4).eval()
    if kind == "safetensors":
        save_file(net.state_dict(), tmp_path / "model.safetensors")
    else:
        torch.save(net.state_dict(), tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(json.dumps({"features": 4}))
    sys.modules["users_nets"] = sys.modules[__name__]
    try:
        model = served(tmp_path, model_class="users_nets:Net")
        assert ask(model, x=ROWS).outputs[0].data.tobytes() == expected(net, ROWS).tobytes()
        with pytest.raises(LoadError, match=r"users_nets:json is no torch\.nn\.Module"):
            served(tmp_path, model_class="users_nets:json")
        (tmp_path / "config.json").write_text(json.dumps({"size": 4}))
        with pytest.raises(LoadError, match=r"cannot be made with \{'size': 4\}.*its arguments go into config\.json"):
            served(tmp_path, model_class="users_nets:Net")
    finally:
        del sys.modules["users_nets"]


def test_weights_without_a_class_say_how_to_name_it(tmp_path: Path) -> None:
    save_file(Net().state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(LoadError, match="holds weights and not the network they are for; name its class"):
        served(tmp_path)


def test_code_in_a_state_dict_is_not_run_even_with_a_class(tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    (tmp_path / "model.pt").write_bytes(pickled_code(trace, tmp_path))
    sys.modules["users_nets"] = sys.modules[__name__]
    try:
        with pytest.raises(LoadError, match=r"model\.pt cannot be loaded by PyTorch"):
            served(tmp_path, model_class="users_nets:Net")
    finally:
        del sys.modules["users_nets"]
    assert not trace.exists()


def test_torchscript_is_served_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = Net().eval()
    torch.jit.save(torch.jit.script(net), tmp_path / "model.pt")
    with caplog.at_level(logging.WARNING):
        model = served(tmp_path)
    assert "model.pt is TorchScript, which PyTorch has deprecated" in caplog.text
    assert ask(model, x=ROWS).outputs[0].data.tobytes() == expected(net, ROWS).tobytes()


def test_torchscript_that_touches_files_is_refused(tmp_path: Path) -> None:
    class Reader(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.from_file("/etc/hostname", False, 1)

    torch.jit.save(torch.jit.script(Reader()), tmp_path / "model.pt")
    with pytest.raises(LoadError, match=r"a TorchScript program that touches files \(from_file\)"):
        served(tmp_path)


def test_bfloat16_is_widened_and_named(tmp_path: Path) -> None:
    class Half(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    torch.export.save(export(Half(), (torch.ones(2, dtype=torch.bfloat16),)), tmp_path / "model.pt2")
    model = served(tmp_path)
    assert model.metadata().inputs[0].datatype == "BF16"
    tensor = Tensor("x", np.array([1.5, 3.0], np.float32), "BF16")
    output = model.predict(InferRequest([tensor])).outputs[0]
    assert (output.datatype, output.data.tolist()) == ("BF16", [3.0, 6.0])
