"""Kubernetes quantities: `100m`, `2Gi`, `1.5`, `1e3` as exact numbers of the base unit (cores, bytes)."""

from __future__ import annotations

import re
from decimal import Decimal

_QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?")
_SUFFIX = {
    **{
        suffix: Decimal(10) ** (3 * power)
        for power, suffix in enumerate(["n", "u", "m", "", "k", "M", "G", "T", "P", "E"], -3)
    },
    **{f"{prefix}i": Decimal(1024) ** power for power, prefix in enumerate("KMGTPE", 1)},
}


def parse_quantity(quantity: str | int | float) -> Decimal:
    """The quantity as a number: `100m` is 0.1, `2Gi` is 2147483648.

    Raises:
        ValueError: it is not a quantity.
    """
    match = _QUANTITY.fullmatch(str(quantity).strip())
    if match is None:
        raise ValueError(f"{quantity!r} is not a Kubernetes quantity, such as 500m, 1.5 or 2Gi")
    number, suffix = match.group(1), match.group(2) or ""
    if suffix[:1] in ("e", "E") and suffix != "E" and suffix != "Ei":
        return Decimal(number + suffix)
    return Decimal(number) * _SUFFIX[suffix]
