"""KServe's Secrets, as the environment that they become."""

from __future__ import annotations

import json

import pytest

from fairlead.runtime.storage.az import AzProvider
from fairlead.runtime.storage.base import FetchOptions
from fairlead.runtime.storage.credentials import az_options, gs_options, http_headers, s3_options


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "0"}, "http://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000", "S3_USE_HTTPS": "1"}, "https://minio:9000"),
        ({"S3_ENDPOINT": "minio:9000"}, "https://minio:9000"),
        ({"AWS_ENDPOINT_URL": "http://a", "S3_ENDPOINT": "b"}, "http://a"),
        ({}, None),
    ],
)
def test_an_s3_endpoint(environment: dict[str, str], endpoint: str | None) -> None:
    assert s3_options(environment)["endpoint_url"] == endpoint


def test_certificates_are_checked_unless_told_otherwise() -> None:
    assert "verify" not in s3_options({})["client_kwargs"]
    assert s3_options({"S3_VERIFY_SSL": "0"})["client_kwargs"]["verify"] is False
    assert s3_options({"AWS_CA_BUNDLE": "/ca.crt"})["client_kwargs"]["verify"] == "/ca.crt"
    mounted = {"CA_BUNDLE_CONFIGMAP_NAME": "ca", "CA_BUNDLE_VOLUME_MOUNT_POINT": "/certs"}
    assert s3_options(mounted)["client_kwargs"]["verify"] == "/certs/cabundle.crt"


def test_an_s3_bucket_for_everybody_and_buckets_as_hosts() -> None:
    assert s3_options({"awsAnonymousCredential": "true"})["anon"] is True
    assert s3_options({"S3_USER_VIRTUAL_BUCKET": "true"})["config_kwargs"] == {"s3": {"addressing_style": "virtual"}}


def test_a_storage_secret_is_overridden_by_the_services_own_parameters() -> None:
    environment = {
        "STORAGE_CONFIG": json.dumps({"type": "s3", "access_key_id": "key", "region": "one", "verify_ssl": False}),
        "STORAGE_OVERRIDE_CONFIG": json.dumps({"region": "two"}),
    }
    given = s3_options(environment)
    assert (given["key"], given["client_kwargs"]) == ("key", {"region_name": "two", "verify": False})
    with pytest.raises(ValueError, match="the storage secret in STORAGE_CONFIG is not JSON"):
        s3_options({"STORAGE_CONFIG": "{"})


def test_google_credentials_are_a_file_or_nobodys(tmp_path: object) -> None:
    assert gs_options({"GOOGLE_APPLICATION_CREDENTIALS": __file__}) == {"token": __file__}
    assert gs_options({"GOOGLE_APPLICATION_CREDENTIALS": "/not/mounted"}) == {"token": "anon"}


def test_azure_credentials() -> None:
    given = az_options({"AZ_TENANT_ID": "t", "AZ_CLIENT_ID": "c", "AZ_CLIENT_SECRET": "s"}, "account")
    assert given == {"account_name": "account", "tenant_id": "t", "client_id": "c", "client_secret": "s", "anon": False}
    assert az_options({"AZURE_STORAGE_ACCOUNT": "a"}, None) == {"account_name": "a", "anon": True}


@pytest.mark.parametrize(
    ("address", "account", "root"),
    [
        ("https://acc.blob.core.windows.net/box/iris/1", "acc", "box/iris/1"),
        ("abfs://box@acc.dfs.core.windows.net/iris", "acc", "box/iris"),
        ("az://box/iris", None, "box/iris"),
    ],
)
def test_azure_addresses(address: str, account: str | None, root: str) -> None:
    provider = AzProvider(address, FetchOptions(environment={}))
    assert (provider.account(), provider.root()) == (account, root)


def test_headers_for_one_host() -> None:
    environment = {"models.example.com-headers": '{"X-Token": "t", "X-Number": 3}'}
    assert http_headers(environment, "models.example.com") == {"X-Token": "t", "X-Number": "3"}
    assert http_headers(environment, "other") == {}
    with pytest.raises(ValueError, match="a-headers is not a JSON object"):
        http_headers({"a-headers": "[]"}, "a")
