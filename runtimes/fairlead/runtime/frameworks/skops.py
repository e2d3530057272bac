"""skops, imported without PyTorch.

When skops is imported it lists all of scikit-learn's packages, and so imports one that imports PyTorch where that is
installed: seconds of start-up and 200 MB, for nothing. scikit-learn takes an absent PyTorch as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fairlead.runtime.frameworks.base import import_lock


@contextmanager
def _without_torch() -> Iterator[None]:
    if "torch" in sys.modules:
        yield
        return
    # None makes an import fail; the lock keeps it from failing for a model that is loaded beside and needs it.
    with import_lock:
        sys.modules["torch"] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules["torch"]


with _without_torch():
    from skops.io import get_untrusted_types, load

__all__ = ["get_untrusted_types", "load"]
