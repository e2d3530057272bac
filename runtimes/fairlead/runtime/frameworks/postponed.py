"""scipy.stats and pandas, imported when they are first used and not together with scikit-learn.

scikit-learn, which XGBoost and LightGBM import too, imports scipy.stats for a few functions of which most serve fitting alone, and pandas, where it is
installed, for one. Each takes 0.2 to 0.3 s of computing, a sixth to a quarter of what importing scikit-learn takes, and some 15 MB. While `postponed()` is
entered, whoever imports one of them gets a module that becomes the real one when it is asked for anything but those functions; each of them becomes the
real one when it is called. Nothing but the moment of the import is different.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import_lock = threading.RLock()
"""Held while a framework is imported, and something is not what it is at other times: here and in skops.py. Whoever imports that module holds it already:
one that took it there would wait, with Python's lock on the module, for a thread that waits for the module."""

_FUNCTIONS = {
    "scipy.stats": frozenset({"chi2", "gmean", "rankdata", "spearmanr"}),
    "scipy.stats.mstats": frozenset({"mquantiles"}),
    "pandas": frozenset[str](),
}
"""What scikit-learn's modules take from them by name: `from scipy.stats import rankdata`. No class: one could not be derived from."""


@contextmanager
def postponed(wanted: str = "") -> Iterator[None]:
    """What is imported already, or is not installed, stays as it is; so does the package of the module `wanted`."""
    with import_lock:
        for name in _FUNCTIONS.keys() - sys.modules.keys():
            package = name.partition(".")[0]
            if package != wanted.partition(".")[0] and find_spec(package) is not None:
                sys.modules[name] = _Postponed(name)
        try:
            yield
        finally:
            _make_way()


def _make_way() -> None:
    for name in _FUNCTIONS:
        if isinstance(sys.modules.get(name), _Postponed):
            sys.modules.pop(name, None)  # another thread may have


class _Postponed(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = _Path(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and sys.modules.get(self.__name__) is self:  # somebody looks through all modules
            raise AttributeError(name)
        if name in _FUNCTIONS[self.__name__]:
            return _Function(self.__name__, name)
        return getattr(_imported(self.__name__), name)


class _Path(list[str]):
    """Of a package: gone through when another thread imports one of its submodules meanwhile."""

    def __init__(self, package: str) -> None:
        super().__init__()
        self._package = package

    def __iter__(self) -> Iterator[str]:
        return iter(_imported(self._package).__path__)


class _Function:
    def __init__(self, module: str, name: str) -> None:
        self._of = module, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._real()(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._real(), name)

    def _real(self) -> Any:
        module, name = self._of
        return getattr(_imported(module), name)


def _imported(module: str) -> ModuleType:
    if isinstance(sys.modules.get(module), _Postponed):
        _make_way()
    return importlib.import_module(module)
