"""scikit-learn models answer as in Python, bit for bit, and files that hold code are refused."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeRegressor

from fairlead.runtime.contract import Contract
from fairlead.runtime.errors import InvalidRequest, LoadError
from fairlead.runtime.frameworks import LoadOptions, lean, load
from fairlead.runtime.model import Model
from fairlead.runtime.tensors import InferRequest, Tensor

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[Y]


def served(estimator: Any, path: Path, **options: Any) -> Model:
    skops.io.dump(estimator, path / "model.skops")
    model = load(path, "m", LoadOptions(**options))
    model.load()
    return model


def ask(model: Model, array: Any, **parameters: Any) -> Tensor:
    answer = model.predict(InferRequest([Tensor("input-0", np.asarray(array))], parameters=parameters))
    assert isinstance(answer, Tensor)
    return answer


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=1000),
        make_pipeline(StandardScaler(), LogisticRegression()),
        make_pipeline(MinMaxScaler(), StandardScaler(with_mean=False), LinearSVC()),
        make_pipeline(PolynomialFeatures(), StandardScaler(), LogisticRegression(max_iter=1000)),
        SGDClassifier(random_state=0),
        RandomForestClassifier(10, random_state=0, n_jobs=2),
        KNeighborsClassifier(),
        SVC(),
        LinearRegression(),
        Ridge(),
        DecisionTreeRegressor(random_state=0),
        HistGradientBoostingClassifier(max_iter=5),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_an_answer_is_the_librarys_own_bit_for_bit(estimator: Any, tmp_path: Path) -> None:
    estimator.fit(X, Y)
    model = served(estimator, tmp_path)
    for rows in (X[:1], X[:2], X, X[:0:-7], np.asfortranarray(X)):
        expected = estimator.predict(rows)
        answer = ask(model, rows)
        assert answer.data.dtype == expected.dtype
        assert answer.data.tobytes() == expected.tobytes()


def test_two_classes_and_their_names_are_kept(tmp_path: Path) -> None:
    estimator = LogisticRegression().fit(X[:100], NAMES[:100])
    model = served(estimator, tmp_path)
    answer = ask(model, X[:100])
    assert answer.datatype == "BYTES"
    assert [value.decode() for value in answer.data] == list(estimator.predict(X[:100]))


def test_the_metadata_is_read_from_the_model(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    model = served(LogisticRegression(max_iter=1000).fit(frame, NAMES), tmp_path)
    metadata = model.metadata()
    assert [(spec.name, spec.datatype, spec.shape) for spec in metadata.inputs] == [("input-0", "FP64", (-1, 4))]
    assert [(spec.name, spec.datatype, spec.shape) for spec in metadata.outputs] == [("output-0", "BYTES", (-1,))]
    assert metadata.parameters == {
        "estimator": "LogisticRegression",
        "method": "predict",
        "feature_names": ["a", "b", "c", "d"],
        "classes": ["setosa", "versicolor", "virginica"],
    }
    assert model.batchable


def test_probabilities_are_for_the_asking(tmp_path: Path) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(X, Y)
    model = served(estimator, tmp_path)
    expected = estimator.predict_proba(X)
    assert ask(model, X, method="predict_proba").data.tobytes() == expected.tobytes()
    always = served(estimator, tmp_path, predict_proba=True)
    assert ask(always, X).data.tobytes() == expected.tobytes()
    assert always.metadata().outputs[0].shape == (-1, 3)


def test_a_method_that_the_model_lacks_is_the_clients_error(tmp_path: Path) -> None:
    model = served(LinearRegression().fit(*load_diabetes(return_X_y=True)), tmp_path)
    with pytest.raises(InvalidRequest, match=r"parameter method is 'predict_proba'; this model has predict$"):
        ask(model, np.zeros((1, 10)), method="predict_proba")
    with pytest.raises(LoadError, match=r"PREDICT_PROBA.*LinearRegression has no predict_proba"):
        served(LinearRegression().fit(X, Y), tmp_path, predict_proba=True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_the_clients_error_where_the_model_cannot_take_them(
    bad: float, tmp_path: Path
) -> None:
    model = served(LogisticRegression(max_iter=1000).fit(X, Y), tmp_path)
    with pytest.raises(InvalidRequest, match="Input X contains"):
        ask(model, [[1.0, 2.0, bad, bad]])


def test_text_comes_as_bytes_and_is_read_as_text(tmp_path: Path) -> None:
    texts = ["good film", "bad film", "good plot", "bad plot"]
    estimator = make_pipeline(CountVectorizer(), MultinomialNB()).fit(texts, [1, 0, 1, 0])
    model = served(estimator, tmp_path)
    assert model.metadata().inputs == ()
    answer = model.predict(InferRequest([Tensor("x", np.array([b"good", b"bad"], dtype=object))]))
    assert answer.data.tolist() == [1, 0]


def test_columns_of_different_kinds_are_taken_by_name(tmp_path: Path) -> None:
    frame = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], "colour": ["red", "blue", "red", "blue"]})
    transform = ColumnTransformer([("n", StandardScaler(), ["size"]), ("c", OneHotEncoder(), ["colour"])])
    estimator = make_pipeline(transform, LogisticRegression()).fit(frame, [1, 0, 1, 0])
    model = served(estimator, tmp_path)
    columns = [
        Tensor("colour", np.array([b"blue", b"red"], dtype=object)),
        Tensor("size", np.array([1.0, 4.0])),
    ]
    expected = estimator.predict(pd.DataFrame({"size": [1.0, 4.0], "colour": ["blue", "red"]}))
    assert model.predict(InferRequest(columns)).data.tobytes() == expected.tobytes()
    with pytest.raises(InvalidRequest, match="input 'size' is missing; the model's features are size, colour"):
        model.predict(InferRequest(columns[:1]))


def test_a_shortcut_that_does_not_give_the_same_bits_is_not_taken() -> None:
    estimator = LogisticRegression(max_iter=1000).fit(X, Y)
    assert lean.method(estimator, "predict") != estimator.predict

    class Other(LogisticRegression):
        """As if scikit-learn had begun to compute in another way."""

        __module__ = "sklearn.linear_model"

        def predict(self, rows: Any) -> Any:
            return super().predict(-rows)

    changed = Other(max_iter=1000).fit(X, Y)
    assert lean.method(changed, "predict") == changed.predict


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("suffix", ["joblib", "pkl", "pickle"])
def test_a_pickle_is_refused_before_its_code_runs(suffix: str, tmp_path: Path) -> None:
    trace = tmp_path / "it-ran"
    file = tmp_path / f"model.{suffix}"
    dump = joblib.dump if suffix == "joblib" else lambda value, path: path.write_bytes(pickle.dumps(value))
    dump([LogisticRegression(), Malicious(trace)], file)
    with pytest.raises(LoadError) as raised:
        load(tmp_path, "m").load()
    assert not trace.exists()
    assert "loading it runs whatever code it holds; refused" in str(raised.value)
    assert 'annotation fairlead.dev/allow-pickle: "true"' in str(raised.value)
    with pytest.raises(LoadError, match="holds a list, which has neither"):
        load(tmp_path, "m", LoadOptions(allow_pickle=True)).load()
    assert trace.exists(), "the test's file is harmless: it proves nothing"


def test_a_pickle_that_is_allowed_is_loaded_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(X, Y)
    joblib.dump(estimator, tmp_path / "model.joblib")
    model = load(tmp_path, "m", LoadOptions.from_environment({"FAIRLEAD_ALLOW_PICKLE": "true"}))
    with caplog.at_level(logging.WARNING):
        model.load()
    assert "model.joblib is unpickled, as allowed: code that it holds runs now" in caplog.text
    assert ask(model, X).data.tobytes() == estimator.predict(X).tobytes()


def a_function_of_the_users(rows: Any) -> Any:
    return rows


def test_a_skops_file_with_an_unknown_type_names_it_and_how_to_allow_it(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    estimator = make_pipeline(
        FunctionTransformer(np.negative), FunctionTransformer(os.path.basename), LogisticRegression()
    )
    estimator.steps[-1] = ("last", LogisticRegression(max_iter=1000).fit(X, Y))
    with pytest.raises(LoadError) as raised:
        served(estimator, tmp_path)
    assert "holds types that skops does not trust by itself: posixpath.basename" in str(raised.value)
    assert "FAIRLEAD_TRUSTED_TYPES=posixpath.basename" in str(raised.value)
    served(make_pipeline(FunctionTransformer(os.path.basename)), tmp_path, trusted_types=("posixpath.basename",))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(LoadError, match=r"model\.skops cannot be read: .*damaged, or saved by another version"):
        load(tmp_path, "m").load()


def test_a_pickle_from_another_version_is_loaded_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    estimator = LogisticRegression(max_iter=1000).fit(X, Y)
    state = estimator.__getstate__() | {"_sklearn_version": "1.0.2"}

    class Old(LogisticRegression):
        def __getstate__(self) -> Any:
            return state

        def __reduce__(self) -> Any:
            return LogisticRegression, (), state

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Old()))
    with caplog.at_level(logging.WARNING):
        load(tmp_path, "m", LoadOptions(allow_pickle=True)).load()
    assert "Trying to unpickle estimator LogisticRegression from version 1.0.2" in caplog.text


@pytest.mark.parametrize(
    "estimator", [DecisionTreeRegressor(random_state=0), RandomForestClassifier(2, random_state=0)]
)
def test_a_tree_with_forged_indices_is_refused(estimator: Any, tmp_path: Path) -> None:
    estimator.fit(X, Y)
    tree = (estimator.estimators_[-1] if hasattr(estimator, "estimators_") else estimator).tree_
    state = tree.__getstate__()
    state["nodes"]["left_child"][0] = 10**9
    tree.__setstate__(state)
    with pytest.raises(LoadError, match=r"a Tree in it has indices that lead outside of it"):
        served(estimator, tmp_path)


def test_columns_of_numbers_may_come_one_by_one(tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    estimator = LogisticRegression(max_iter=1000).fit(frame, Y)
    model = served(estimator, tmp_path)
    contract = Contract(model.metadata())
    request = InferRequest([Tensor(name, frame[name].to_numpy()) for name in "dbca"])
    contract.check(request)
    assert model.predict(request).data.tobytes() == estimator.predict(frame).tobytes()
    matrix = InferRequest([Tensor("any", X)])
    contract.check(matrix)
    assert model.predict(matrix).data.tobytes() == estimator.predict(frame).tobytes()
    with pytest.raises(InvalidRequest, match="column 'c' is missing; the model's columns are a, b, c, d"):
        contract.check(InferRequest([Tensor(name, np.zeros(2)) for name in "abd"]))
    with pytest.raises(InvalidRequest, match="the columns differ in length"):
        contract.check(
            InferRequest([Tensor(name, np.zeros(length)) for name, length in zip("abcd", (1, 2, 2, 2), strict=True)])
        )


def test_the_estimators_that_skops_trusts_are_those_that_it_would_list_itself() -> None:
    from sklearn.utils import all_estimators

    from fairlead.runtime.frameworks.skops import is_public_estimator

    listed = {f"{kind.__module__}.{kind.__name__}" for _, kind in all_estimators()}
    assert {name for name in listed if not is_public_estimator(name)} == set()
    for name in (
        "sklearn.base.BaseEstimator",
        "sklearn.linear_model._base.LinearModel",  # abstract
        "sklearn.linear_model._logistic.make_pipeline",
        "sklearn.linear_model.LogisticRegression",  # a name that no file has
        "sklearn.utils._mocking.CheckingClassifier",
        "sklearn.externals.joblib.Memory",
        "sklearn.nowhere.Estimator",
        "os.path.basename",
        "sklearn",
        "",
    ):
        assert name not in listed
        assert not is_public_estimator(name)


def test_whoever_uses_skops_beside_is_trusted_the_same() -> None:
    script = (
        "import fairlead.runtime.frameworks.skops, skops.io\n"
        "from sklearn.cluster import KMeans\n"
        "assert skops.io.get_untrusted_types(data=skops.io.dumps(KMeans(3))) == []\n"
        "skops.io.loads(skops.io.dumps(KMeans(3)))\n"
        "from sklearn.utils import all_estimators\n"
        "assert len(all_estimators()) > 100"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=110)


def test_loading_a_skops_file_imports_neither_pytorch_nor_pandas_nor_scipys_statistics(tmp_path: Path) -> None:
    skops.io.dump(LogisticRegression(max_iter=1000).fit(X, Y), tmp_path / "model.skops")
    program = (
        "import sys; from pathlib import Path; from fairlead.runtime.frameworks import load;"
        "load(Path(sys.argv[1]), 'm').load(); assert not {'torch', 'pandas', 'scipy.stats'} & sys.modules.keys(); import torch"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(tmp_path)], check=True, timeout=100)


def test_skops_is_imported_under_the_lock_that_its_import_takes(tmp_path: Path) -> None:
    """Who took them in the other order would wait for a thread that waits for it."""
    skops.io.dump(LogisticRegression(max_iter=1000).fit(X, Y), tmp_path / "model.skops")
    program = """
import sys
from pathlib import Path
from fairlead.runtime.frameworks import load
from fairlead.runtime.frameworks.postponed import import_lock
held = []
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "fairlead.runtime.frameworks.skops":
            held.append(import_lock._is_owned())
sys.meta_path.insert(0, Watch())
load(Path(sys.argv[1]), "m").load()
assert held == [True], held
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program, str(tmp_path)], check=True, timeout=60)


def test_pandas_is_there_for_whoever_needs_it() -> None:
    program = """
import sys
import fairlead.runtime.frameworks.skops
import sklearn.utils.fixes
from fairlead.runtime.frameworks.base import require
assert "pandas" not in sys.modules
version = sklearn.utils.fixes.pd.__version__
import pandas
assert version == pandas.__version__ and type(pandas).__name__ == "module" and sklearn.utils.fixes.pd.DataFrame is pandas.DataFrame
for name in [name for name in sys.modules if name.partition(".")[0] == "pandas"]:
    del sys.modules[name]
assert type(require("pandas.api", "pandas")).__name__ == type(require("pandas", "pandas")).__name__ == "module"
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=110)


def test_scipys_statistics_are_there_for_whoever_needs_them() -> None:
    program = """
import sys
import fairlead.runtime.frameworks.skops
import sklearn.metrics
from sklearn.preprocessing import QuantileTransformer
assert "scipy.stats" not in sys.modules
assert sklearn.metrics.roc_auc_score([0, 0, 1], [0.1, 0.4, 0.9]) == 1.0
few = QuantileTransformer(n_quantiles=3, output_distribution="normal").fit_transform([[1.0], [2.0], [3.0]])
assert few[1][0] == 0.0
import sklearn.metrics._ranking
assert list(sklearn.metrics._ranking.rankdata([3.0, 1.0])) == [2.0, 1.0]
import scipy.stats.qmc
import scipy.stats as statistics
from sklearn.utils.fixes import scipy as theirs
assert statistics.norm is scipy.stats.norm is theirs.stats.norm is sklearn.preprocessing._data.stats.norm
assert type(sys.modules["scipy.stats"]).__name__ == "module"
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=110)


def test_another_thread_that_imports_scipys_statistics_meanwhile_gets_them() -> None:
    program = """
from fairlead.runtime.frameworks.postponed import postponed
with postponed():
    import scipy.stats.qmc
    from scipy.stats import norm, rankdata
    from scipy.stats.mstats import mquantiles
assert norm.cdf(0) == 0.5 and list(rankdata([2, 1])) == [2, 1] and len(mquantiles([1.0, 2.0])) == 3
assert scipy.stats.qmc.Sobol is scipy.stats.qmc.Sobol
with postponed():
    import scipy.stats
    assert scipy.stats.norm is norm
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=110)


def test_the_functions_that_skops_trusts_are_those_that_it_would_list_itself() -> None:
    program = "{}import skops.io._trusted_types as types; print(types.SCIPY_UFUNC_TYPE_NAMES)"
    printed = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program.format(first)], check=True, timeout=60, capture_output=True
        ).stdout
        for first in ("", "import fairlead.runtime.frameworks.skops\n")
    ]
    assert printed[0] == printed[1]
    assert b"scipy.special._special_ufuncs.expit" in printed[0]
