"""The user's pages name what there is: every label and annotation, and every field that has no effect."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fairlead.api import names
from fairlead.api.unsupported import ANNOTATIONS, FIELDS

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference.md").read_text()
MIGRATION = (DOCS / "migrating-from-kserve.md").read_text()
METADATA = sorted(
    value
    for key, value in vars(names).items()
    if key.isupper()
    and isinstance(value, str)
    and re.fullmatch(r"(fairlead\.dev|(serving|networking)\.kserve\.io)/[\w.-]+", value)
)


@pytest.mark.parametrize("name", METADATA)
def test_a_label_or_annotation_is_in_the_reference(name: str) -> None:
    assert f"`{name}`" in REFERENCE


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:fairlead\.dev)/[\w.-]+)`", REFERENCE))))
def test_the_reference_names_no_label_or_annotation_that_is_gone(name: str) -> None:
    assert name in METADATA


@pytest.mark.parametrize("field", [entry.path.partition(".")[2] for entry in FIELDS])
def test_a_field_without_effect_is_named_to_those_who_come_from_kserve(field: str) -> None:
    assert f"`{field}`" in MIGRATION or f"`{field.rpartition('.')[2]}`" in MIGRATION or f".{field}`" in MIGRATION


@pytest.mark.parametrize(("annotation", "value"), [(name, value) for name, value, _ in ANNOTATIONS])
def test_an_annotation_without_effect_is_named_to_those_who_come_from_kserve(annotation: str, value: str) -> None:
    assert annotation.removeprefix("serving.kserve.io/") in MIGRATION
    assert value == "*" or value in MIGRATION
