"""scipy.stats, imported when it is first used and not together with scikit-learn.

scikit-learn, which XGBoost and LightGBM import too, imports it for a few functions of which most serve fitting alone. It takes a quarter of what importing
scikit-learn takes: 0.3 s of computing and 15 MB. While `postponed()` is entered, whoever imports scipy.stats gets a module that becomes the real one when
it is asked for anything but those functions; each of them becomes the real one when it is called. Nothing but the moment of the import is different.
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
"""Held while a framework is imported, and something is not what it is at other times: here and in skops.py."""

_FUNCTIONS = {
    "scipy.stats": frozenset({"chi2", "gmean", "rankdata", "spearmanr"}),
    "scipy.stats.mstats": frozenset({"mquantiles"}),
}
"""What scikit-learn's modules take from them by name: `from scipy.stats import rankdata`. No class: one could not be derived from."""


@contextmanager
def postponed() -> Iterator[None]:
    """Does nothing where scipy.stats is imported already, or cannot be."""
    with import_lock:
        if "scipy.stats" not in sys.modules and find_spec("scipy") is not None:
            sys.modules.update({name: _Postponed(name) for name in _FUNCTIONS})
        try:
            yield
        finally:
            _make_way()


def _make_way() -> None:
    for name in _FUNCTIONS:
        if isinstance(sys.modules.get(name), _Postponed):
            del sys.modules[name]


class _Postponed(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = _Path(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # somebody looks through all modules
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
