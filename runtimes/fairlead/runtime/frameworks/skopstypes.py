"""Types of scikit-learn's own that skops does not trust by itself, and that Fairlead does.

None of them runs code that is in the file. Some are read by compiled code that believes their indices; a forged file
could make it read outside its arrays, so these are checked after loading and before they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

TRUSTED = frozenset(
    {
        "numpy.dtype",
        "numpy.mean",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    }
)


def check(estimator: Any) -> None:
    """Raises ValueError for a tree whose indices lead outside of it."""
    for item in _reachable(estimator):
        checker = _CHECKERS.get(type(item).__name__)
        if checker is not None and not checker(item):
            raise ValueError(
                f"a {type(item).__name__} in it has indices that lead outside of it: the file is forged or damaged"
            )


def _tree(tree: Any) -> bool:
    count, features = tree.node_count, tree.n_features
    left, right = tree.children_left, tree.children_right
    inner = left != -1
    # Children come after their parents: no index leads outside, and no walk goes in circles.
    here = np.arange(count)[inner]
    return bool(
        np.all((left[inner] > here) & (left[inner] < count) & (right[inner] > here) & (right[inner] < count))
        and np.all((tree.feature[inner] >= 0) & (tree.feature[inner] < features))
    )


def _tree_predictor(predictor: Any) -> bool:
    nodes = predictor.nodes
    count = len(nodes)
    inner = nodes["is_leaf"] == 0
    here = np.arange(count)[inner]
    left, right = nodes["left"][inner].astype(np.int64), nodes["right"][inner].astype(np.int64)
    categories = nodes["bitset_idx"][inner & (nodes["is_categorical"] == 1)]
    return bool(
        count
        and np.all((left > here) & (left < count) & (right > here) & (right < count))
        and np.all(categories < max(len(predictor.raw_left_cat_bitsets), 1))
    )


def _kd_tree(tree: Any) -> bool:
    data, index, nodes, bounds = (np.asarray(part) for part in tree.get_arrays())
    count = len(nodes)
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    return bool(
        np.all((index >= 0) & (index < len(data)))
        and np.all(
            (nodes["idx_start"] >= 0) & (nodes["idx_start"] <= nodes["idx_end"]) & (nodes["idx_end"] <= len(index))
        )
        and np.all(2 * inner + 2 < count)
        and bounds.shape[1:] == (count, data.shape[1])
    )


_CHECKERS: dict[str, Callable[[Any], bool]] = {"Tree": _tree, "TreePredictor": _tree_predictor, "KDTree": _kd_tree}


def _reachable(root: Any) -> Iterable[Any]:
    """Everything that the estimator is made of: attributes, items of lists, tuples, dicts and arrays of objects."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, (str, bytes, int, float, type)):
            continue
        seen.add(id(item))
        yield item
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, (list, tuple, set)):
            todo.extend(item)
        elif isinstance(item, np.ndarray):
            if item.dtype == object:
                todo.extend(item.ravel().tolist())
        elif hasattr(item, "__dict__"):
            todo.extend(vars(item).values())
