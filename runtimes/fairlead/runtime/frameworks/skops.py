"""skops, imported without all of scikit-learn.

skops trusts scikit-learn's public estimators. To know them it lists them all when it is imported, and so imports every module of scikit-learn, and
PyTorch where that is installed: a quarter of a second of computing, with PyTorch seconds and 200 MB, for nothing. Here the list is left empty,
and each type that a file names is looked up by the rule that the list is made by.
It trusts scipy.special's functions too, and looks for each of the 230 in every module of the process to find out where it is from: 0.15 s in a model
server. Here they are looked for where they are. And scipy.stats is left out (postponed.py).
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import takewhile
from typing import Any

from fairlead.runtime.frameworks.postponed import import_lock, postponed

_NOT_LISTED = frozenset({"tests", "externals", "setup", "conftest", "experimental", "estimator_checks"})
"""Modules that `sklearn.utils.all_estimators` does not look into."""


@lru_cache
def is_public_estimator(name: str) -> bool:
    """Of a type's full name, `sklearn.linear_model._logistic.LogisticRegression`: whether `sklearn.utils.all_estimators` lists it.

    Imports nothing but the package that exports it, `sklearn.linear_model`.
    """
    *modules, last = name.split(".")
    if modules[:1] != ["sklearn"] or last.startswith("_") or not _NOT_LISTED.isdisjoint(modules):
        return False
    from sklearn.base import BaseEstimator

    try:
        package = importlib.import_module(".".join(takewhile(lambda part: not part.startswith("_"), modules)))
    except ImportError:
        return False
    found: Any = vars(package).get(last)
    return (
        inspect.isclass(found)
        and issubclass(found, BaseEstimator)
        and found is not BaseEstimator
        and not inspect.isabstract(found)
        and f"{found.__module__}.{found.__name__}" == name
    )


@contextmanager
def _nothing_listed() -> Iterator[None]:
    """The lock keeps another thread from being told that there are no estimators."""
    import scipy.special
    import sklearn.utils

    with import_lock:
        listing, directory = sklearn.utils.all_estimators, vars(scipy.special).get("__dir__")
        sklearn.utils.all_estimators = scipy.special.__dir__ = list
        try:
            yield
        finally:
            sklearn.utils.all_estimators = listing
            if directory is None:
                del scipy.special.__dir__
            else:
                scipy.special.__dir__ = directory


def _special_functions() -> list[str]:
    """The full names that skops would list: each function is from the first module that has it."""
    import numpy as np
    import scipy.special

    modules = [(name, module) for name, module in sys.modules.items() if name.startswith("scipy.special.")]
    kinds = (np.ufunc, getattr(sys.modules.get("scipy.special._ufunc_tools"), "_UFuncWrapper", np.ufunc))
    names = set()
    for function in vars(scipy.special).values():
        if isinstance(function, kinds):
            called = function.__name__
            home = getattr(function, "__module__", None) or next(
                (name for name, module in modules if vars(module).get(called) is function), None
            )
            names.add(f"{home}.{called}")
    return sorted(names)


def _looked_up() -> None:
    """From now on skops asks for each type, whoever uses it in this process."""
    from skops.io import _audit

    listed = _audit.check_type

    def check_type(module_name: str, type_name: str, trusted: list[str]) -> bool:
        return listed(module_name, type_name, trusted) or is_public_estimator(f"{module_name}.{type_name}")

    _audit.check_type = check_type


if "skops.io" not in sys.modules:  # else somebody has paid for the lists already
    with postponed(), _nothing_listed():
        from skops.io import _trusted_types
    _trusted_types.SCIPY_UFUNC_TYPE_NAMES.extend(_special_functions())
    _looked_up()

from skops.io import get_untrusted_types, load  # noqa: E402

__all__ = ["get_untrusted_types", "is_public_estimator", "load"]
