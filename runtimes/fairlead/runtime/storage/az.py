"""Azure Blob Storage: `az://container/path`, `abfs(s)://container@account…/path`, `https://account.blob.core.windows.net/container/path`."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from fairlead.runtime.storage.credentials import az_options
from fairlead.runtime.storage.errors import StorageError
from fairlead.runtime.storage.objects import ObjectProvider


class AzProvider(ObjectProvider):
    module = "adlfs"
    extra = "azure"

    def root(self) -> str:
        parts = urlsplit(self.uri)
        if parts.scheme == "https":
            return unquote(parts.path.lstrip("/"))
        return f"{parts.netloc.partition('@')[0]}{unquote(parts.path)}"

    def account(self) -> str | None:
        """The one that the address names."""
        parts = urlsplit(self.uri)
        host = parts.netloc if parts.scheme == "https" else parts.netloc.partition("@")[2]
        return host.partition(".")[0] or None

    def filesystem(self, module: Any) -> Any:
        options = az_options(self.options.environment, self.account())
        if not {"account_name", "connection_string"} & options.keys():
            raise StorageError(
                self.uri,
                "the address names no storage account",
                "set AZURE_STORAGE_ACCOUNT, or write abfs://container@account/path",
            )
        return module.AzureBlobFileSystem(**options, skip_instance_cache=True, use_listings_cache=False)

    def credentials_hint(self) -> str:
        return "give AZURE_STORAGE_ACCESS_KEY, or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, in a Secret"
