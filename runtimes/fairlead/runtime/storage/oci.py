"""`oci://`: a model in a container registry. Named here so that the error is clear until it is built."""

from __future__ import annotations

from pathlib import Path

from fairlead.runtime.storage.base import Provider
from fairlead.runtime.storage.errors import StorageError


class OciProvider(Provider):
    def identity(self) -> str:
        raise StorageError(
            self.uri,
            "models in container registries are not supported yet",
            "use s3://, gs://, az://, hf://, https://, pvc:// or file://",
        )

    def download(self, directory: Path) -> None:
        self.identity()
