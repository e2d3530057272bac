"""`gs://bucket/path`: Google Cloud Storage."""

from __future__ import annotations

from typing import Any

from fairlead.runtime.storage.credentials import gs_options
from fairlead.runtime.storage.objects import ObjectProvider


class GsProvider(ObjectProvider):
    module = "gcsfs"
    extra = "gcs"

    def root(self) -> str:
        return self.uri.removeprefix("gs://")

    def filesystem(self, module: Any) -> Any:
        options = gs_options(self.options.environment)
        # The plain one: the package's default asks every bucket for its kind over gRPC first, which closed networks, mirrors
        # and emulators answer with a minute of silence.
        return module.core.GCSFileSystem(
            **options, timeout=self.options.timeout, skip_instance_cache=True, use_listings_cache=False
        )

    def credentials_hint(self) -> str:
        return "give GOOGLE_APPLICATION_CREDENTIALS (a service account's file) in a Secret; without it only public buckets can be read"
