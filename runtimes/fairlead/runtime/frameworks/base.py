"""What a framework is, and what may be said about how its models are loaded."""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from fairlead.api.names import ALLOW_PICKLE
from fairlead.runtime.errors import LoadError
from fairlead.runtime.frameworks.postponed import postponed
from fairlead.runtime.model import Model

ALLOW_PICKLE_ENV = "FAIRLEAD_ALLOW_PICKLE"
TRUSTED_TYPES_ENV = "FAIRLEAD_TRUSTED_TYPES"
FRAMEWORK_ENV = "FAIRLEAD_FRAMEWORK"
MODEL_CLASS_ENV = "FAIRLEAD_MODEL_CLASS"
THREADS_ENV = "FAIRLEAD_THREADS"
PREDICT_PROBA_ENV = "PREDICT_PROBA"
"""KServe's name."""


@dataclass(frozen=True)
class LoadOptions:
    allow_pickle: bool = False
    """May loading run code that the model's files hold: pickles, Python files?"""
    trusted_types: tuple[str, ...] = ()
    """Types that a skops file may hold besides those that skops trusts by itself: `package.module.Class`."""
    framework: str | None = None
    """Its name, where the files fit several."""
    model_class: str | None = None
    """`package.module:Class`: a Model, a function, or the class that weights (safetensors, a state_dict) are for."""
    predict_proba: bool = False
    """Classifiers answer with probabilities instead of labels."""
    threads: int | None = None
    """Of one prediction; None: the CPUs that this process may use."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> LoadOptions:
        """Options as a pod's environment gives them. LoadError names a variable that cannot be read."""
        threads = environment.get(THREADS_ENV)
        if threads and not threads.isdigit():
            raise LoadError(f"{THREADS_ENV}={threads!r} is not a number")
        return cls(
            allow_pickle=truth(environment.get(ALLOW_PICKLE_ENV)),
            trusted_types=tuple(environment.get(TRUSTED_TYPES_ENV, "").replace(",", " ").split()),
            framework=environment.get(FRAMEWORK_ENV) or None,
            model_class=environment.get(MODEL_CLASS_ENV) or None,
            predict_proba=truth(environment.get(PREDICT_PROBA_ENV)),
            threads=int(threads) if threads else None,
        )

    @property
    def cpus(self) -> int:
        return self.threads or available_cpus()


class Framework(ABC):
    """One way to make a model of a file. Stateless; importing its module imports nothing of the framework itself."""

    name: ClassVar[str]
    extra: ClassVar[str] = ""
    """What to install: `pip install 'fairlead[extra]'`."""

    @abstractmethod
    def load(self, path: Path, name: str, options: LoadOptions) -> Model:
        """A Model whose `load()` will read `path`. Raises LoadError for what can be told before that."""


def require(module: str, extra: str) -> ModuleType:
    """Import a framework's library, or say how to install it."""
    try:
        with postponed(module):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise LoadError(
            f"this model needs {error.name}, which is not installed; pip install 'fairlead[{extra}]'"
        ) from error


def refuse_code(path: Path, what: str, instead: str) -> LoadError:
    """The error for a file whose loading would run code that is in it."""
    return LoadError(
        f"{path.name} is {what}, and loading it runs whatever code it holds; refused. "
        f'{instead}, or, if you trust where it comes from, allow it: annotation {ALLOW_PICKLE}: "true" '
        f"on the InferenceService or its namespace ({ALLOW_PICKLE_ENV}=true or --allow_pickle for a server started by hand)"
    )


def truth(text: str | None) -> bool:
    return (text or "").strip().lower() in ("1", "true", "yes", "on")


@cache
def available_cpus() -> int:
    """CPUs that this process may use: the affinity mask and the container's quota, rounded up. At least 1."""
    cpus = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    return max(1, int(-(-min(cpus, _cgroup_quota()) // 1)))


def _cgroup_quota() -> float:
    """CPUs of the container's limit; infinity without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        v1 = Path("/sys/fs/cgroup/cpu")
        microseconds = int((v1 / "cpu.cfs_quota_us").read_text())
        return microseconds / int((v1 / "cpu.cfs_period_us").read_text()) if microseconds > 0 else float("inf")
    except (OSError, ValueError):
        return float("inf")
