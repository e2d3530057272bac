"""ClusterStorageContainer `serving.kserve.io/v1alpha1`: a container that fetches models from addresses of some kinds."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from fairlead.api.base import ApiObject, ApiType, Open

INIT_CONTAINER = "initContainer"


def _is_a_regular_expression(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


class SupportedUriFormat(ApiType):
    """Addresses that begin with `prefix`; without one, those in which `regex` is found."""

    prefix: Annotated[str, Field(min_length=1)] | None = None
    regex: Annotated[str, Field(min_length=1)] | None = None

    def covers(self, uri: str) -> bool:
        """A regular expression that Python cannot read covers nothing."""
        if self.prefix is not None:
            return uri.startswith(self.prefix)
        return self.regex is not None and _is_a_regular_expression(self.regex) and bool(re.search(self.regex, uri))


class StorageContainerSpec(ApiType):
    container: Open = Field(description="The init container; it is given the address and the directory as arguments.")
    supported_uri_formats: Annotated[list[SupportedUriFormat], Field(min_length=1)]
    workload_type: Literal["initContainer", "localModelDownloadJob"] = "initContainer"
    supports_multi_model_download: bool | None = None


class ClusterStorageContainer(ApiObject):
    """Fetches models for the services of every namespace."""

    api_version: Literal["serving.kserve.io/v1alpha1"] = "serving.kserve.io/v1alpha1"
    kind: Literal["ClusterStorageContainer"] = "ClusterStorageContainer"
    spec: StorageContainerSpec
    disabled: bool | None = None

    @property
    def usable(self) -> bool:
        return not self.disabled and self.spec.workload_type == INIT_CONTAINER

    def covers(self, uri: str) -> bool:
        return any(supported.covers(uri) for supported in self.spec.supported_uri_formats)
