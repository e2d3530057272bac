"""The base of all API types: camelCase on the wire, unknown fields are errors, and rules that exist once.

A `Rule` is the same sentence twice: in CEL for the API server, which enforces it at apply time, and in Python for whoever reads an
object that another API server admitted (KServe's CRD may still be installed). The tests hold both to the same verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core import ErrorDetails as PydanticError

from fairlead.api.errors import InvalidObject, Problem

Open = dict[str, Any]
"""A Kubernetes object that is passed on as given: its own API server field validates it when the Deployment is applied."""
OpenList = list[Open]
Percent = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""Not `format: int32`: the API server does not hold custom resources to it."""


@dataclass(frozen=True)
class Rule:
    """A condition between fields. `cel` sees the object as `self`; `holds` sees it as the parsed type."""

    cel: str
    message: str
    holds: Callable[[Any], bool]


class ApiType(BaseModel):
    """Strict types, camelCase aliases, no unknown fields, and the rules of the class and its bases."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        strict=True,
        frozen=True,
        protected_namespaces=(),
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def rules(cls) -> Iterator[Rule]:
        """The rules of this class and its bases, bases first."""
        for base in reversed(cls.__mro__):
            yield from base.__dict__.get("RULES", ())

    @model_validator(mode="after")
    def _keeps_its_rules(self) -> Self:
        broken = [rule.message for rule in self.rules() if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        rules = [{"rule": rule.cel, "message": rule.message} for rule in cls.rules()]
        if rules:
            schema["x-kubernetes-validations"] = rules
        return schema

    def to_dict(self, only: type[ApiType] | None = None) -> Open:
        """The object as it was given, in camelCase; with `only`, just the fields that this base declares."""
        include = set(only.model_fields) if only else None
        return self.model_dump(by_alias=True, exclude_none=True, exclude_unset=True, include=include)


class Metadata(ApiType):
    """What Fairlead reads of `metadata`; the API server knows the rest."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _null_is_empty(cls, given: Any) -> Any:
        return (
            {key: value for key, value in given.items() if value is not None} if isinstance(given, Mapping) else given
        )


class ApiObject(ApiType):
    """A whole object, with `apiVersion`, `kind` and `metadata`."""

    api_version: str
    kind: str
    metadata: Metadata

    @classmethod
    def parse(cls, obj: Mapping[str, Any]) -> Self:
        """The typed object.

        Raises:
            InvalidObject: it breaks the schema or a rule; every problem is named with its path.
        """
        try:
            return cls.model_validate(dict(obj))
        except ValidationError as error:
            metadata = obj.get("metadata")
            name = metadata.get("name") if isinstance(metadata, Mapping) else None
            problems = tuple(_problem(detail) for detail in error.errors(include_url=False))
            raise InvalidObject(cls.__name__, str(name or ""), problems) from None


def _problem(error: PydanticError) -> Problem:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
    match error["type"]:
        case "extra_forbidden":
            return Problem(path, "unknown field")
        case "missing":
            return Problem(path, "required")
        case "value_error":
            return Problem(path, error["msg"].removeprefix("Value error, "))
        case _:
            return Problem(path, f"{error['msg']}, not {error['input']!r}")
