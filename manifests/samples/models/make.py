"""Makes the models that the samples serve: Fisher's irises, four measurements in cm to one of three species, in each format.

python manifests/samples/models/make.py
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import lightgbm
import skl2onnx
import skops.io
import torch
import xgboost
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

HERE = Path(__file__).parent


def main() -> None:
    measurements, species = load_iris(return_X_y=True)

    def fitted(model: ClassifierMixin) -> ClassifierMixin:
        return model.fit(measurements, species)

    linear = fitted(LogisticRegression(max_iter=1000))
    skops.io.dump(linear, HERE / "iris.skops")
    skops.io.dump(fitted(SVC()), HERE / "iris-v2.skops")
    inputs = [("measurements", FloatTensorType([None, 4]))]
    onnx = skl2onnx.to_onnx(linear, initial_types=inputs, options={"zipmap": False})
    (HERE / "iris.onnx").write_bytes(onnx.SerializeToString())
    fitted(xgboost.XGBClassifier(n_estimators=5, max_depth=3)).save_model(HERE / "iris.ubj")
    trees = fitted(lightgbm.LGBMClassifier(n_estimators=5, max_depth=3, verbose=-1))
    trees.booster_.save_model(HERE / "iris.lgb")
    torch.export.save(exported(linear), HERE / "iris.pt2")
    with zipfile.ZipFile(HERE / "two-models.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(HERE / "iris.skops", "linear/model.skops")
        archive.write(HERE / "iris-v2.skops", "vectors/model.skops")


def exported(model: LogisticRegression) -> torch.export.ExportedProgram:
    """The same as a layer of PyTorch's, for any number of rows."""
    layer = torch.nn.Linear(4, 3)
    layer.load_state_dict({"weight": torch.tensor(model.coef_), "bias": torch.tensor(model.intercept_)})
    program = torch.nn.Sequential(layer, torch.nn.Softmax(dim=1)).eval()
    rows = {0: torch.export.Dim("rows", min=1, max=1024)}
    return torch.export.export(program, (torch.zeros(2, 4),), dynamic_shapes={"input": rows})


if __name__ == "__main__":
    main()
