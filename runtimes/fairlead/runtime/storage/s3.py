"""`s3://bucket/path`: Amazon S3 and what speaks its protocol (MinIO, Ceph, …)."""

from __future__ import annotations

from typing import Any

from fairlead.runtime.storage.credentials import s3_options
from fairlead.runtime.storage.objects import ObjectProvider


class S3Provider(ObjectProvider):
    module = "s3fs"
    extra = "s3"

    def root(self) -> str:
        return self.uri.removeprefix("s3://")

    def filesystem(self, module: Any) -> Any:
        options = s3_options(self.options.environment)
        config = {
            "connect_timeout": self.options.timeout,
            "read_timeout": self.options.timeout,
            # Tries are counted once, in ObjectProvider, and not thrice.
            "retries": {"max_attempts": 1, "mode": "standard"},
            **options.pop("config_kwargs"),
        }
        made = module.S3FileSystem(**options, config_kwargs=config, skip_instance_cache=True, use_listings_cache=False)
        made.retries = 1
        return made

    def credentials_hint(self) -> str:
        return "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the service account's Secret (awsAnonymousCredential=true for a public bucket)"
