"""KServe's credential Secrets, as the environment that they become in a pod, turned into what each storage wants.

The keys of the service account's Secrets (see secrets.py) have become variables: `AWS_*` and `S3_*` for S3, `GOOGLE_APPLICATION_CREDENTIALS`
(a file, or `…_JSON` its content) for Google, `AZURE_*` (older: `AZ_*`) for Azure, `HF_TOKEN`, `<host>-headers` for HTTPS; or, for
`storage.key`, one JSON document in `STORAGE_CONFIG`, overridden by `STORAGE_OVERRIDE_CONFIG`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairlead.runtime.storage.secrets import GOOGLE_JSON

STORAGE_CONFIG = "STORAGE_CONFIG"
STORAGE_OVERRIDE_CONFIG = "STORAGE_OVERRIDE_CONFIG"

_CONFIG_KEYS: dict[str, dict[str, str]] = {
    "s3": {
        "endpoint_url": "AWS_ENDPOINT_URL",
        "access_key_id": "AWS_ACCESS_KEY_ID",
        "secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
        "region": "AWS_DEFAULT_REGION",
        "ca_bundle": "AWS_CA_BUNDLE",
        "verify_ssl": "S3_VERIFY_SSL",
        "anonymous": "awsAnonymousCredential",
    },
    "azure": {
        "account_name": "AZURE_STORAGE_ACCOUNT",
        "access_key": "AZURE_STORAGE_ACCESS_KEY",
        "tenant_id": "AZURE_TENANT_ID",
        "client_id": "AZURE_CLIENT_ID",
        "client_secret": "AZURE_CLIENT_SECRET",
    },
    "hf": {"token": "HF_TOKEN", "endpoint_url": "HF_ENDPOINT"},
}


def effective(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with the storage secret's JSON spelled out in it. ValueError if that is not JSON."""
    config = storage_config(environment)
    names = _CONFIG_KEYS.get(str(config.get("type", "")), {})
    return {**environment, **{names[key]: _text(value) for key, value in config.items() if key in names}}


def storage_config(environment: Mapping[str, str]) -> dict[str, Any]:
    """The entry of the storage secret, overridden by the service's own parameters. ValueError if one is not JSON."""
    return {**_document(environment, STORAGE_CONFIG), **_document(environment, STORAGE_OVERRIDE_CONFIG)}


def s3_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of `s3fs.S3FileSystem`."""
    env = effective(environment)
    client: dict[str, Any] = {}
    config: dict[str, Any] = {}
    if region := env.get("AWS_DEFAULT_REGION") or env.get("AWS_REGION"):
        client["region_name"] = region
    if not _truth(env.get("S3_VERIFY_SSL"), default=True):
        client["verify"] = False
    elif bundle := _ca_bundle(env):
        client["verify"] = bundle
    endpoint = _s3_endpoint(env)
    if _truth(env.get("S3_USER_VIRTUAL_BUCKET")) or (
        endpoint == "https://s3.amazonaws.com" and region not in (None, "us-east-1")
    ):
        config["s3"] = {"addressing_style": "virtual"}
    if _truth(env.get("S3_USE_ACCELERATE")):
        config["s3"] = {"use_accelerate_endpoint": True}
    return {
        "anon": _truth(env.get("awsAnonymousCredential")),
        "key": env.get("AWS_ACCESS_KEY_ID") or None,
        "secret": env.get("AWS_SECRET_ACCESS_KEY") or None,
        "token": env.get("AWS_SESSION_TOKEN") or None,
        "endpoint_url": endpoint,
        "client_kwargs": client,
        "config_kwargs": config,
    }


def gs_options(environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of `gcsfs.GCSFileSystem`: a service account's key, else the machine's own identity, else nobody's."""
    env = effective(environment)
    if endpoint := env.get("STORAGE_EMULATOR_HOST"):
        return {"token": "anon", "endpoint_url": endpoint if "://" in endpoint else f"http://{endpoint}"}
    if content := env.get(GOOGLE_JSON):
        return {"token": _google_key(content)}
    path = env.get("GOOGLE_APPLICATION_CREDENTIALS")
    # A Secret that is mounted optionally leaves the variable and no file.
    if path and Path(path).exists():
        return {"token": path}
    return {"token": None if _truth(env.get("GOOGLE_USE_METADATA_SERVER")) else "anon"}


def az_options(environment: Mapping[str, str], account: str | None) -> dict[str, Any]:
    """Arguments of `adlfs.AzureBlobFileSystem`. `account` is the one in the address, if it names one."""
    env = effective(environment)
    found = {
        "account_name": account or env.get("AZURE_STORAGE_ACCOUNT") or env.get("AZURE_STORAGE_ACCOUNT_NAME"),
        "account_key": env.get("AZURE_STORAGE_ACCESS_KEY") or env.get("AZURE_STORAGE_KEY"),
        "connection_string": env.get("AZURE_STORAGE_CONNECTION_STRING"),
        "sas_token": env.get("AZURE_STORAGE_SAS_TOKEN"),
        "tenant_id": env.get("AZURE_TENANT_ID") or env.get("AZ_TENANT_ID"),
        "client_id": env.get("AZURE_CLIENT_ID") or env.get("AZ_CLIENT_ID"),
        "client_secret": env.get("AZURE_CLIENT_SECRET") or env.get("AZ_CLIENT_SECRET"),
    }
    options: dict[str, Any] = {name: value for name, value in found.items() if value}
    options["anon"] = not {"account_key", "connection_string", "sas_token", "client_id"} & options.keys()
    return options


def http_headers(environment: Mapping[str, str], host: str, port: int | None = None) -> dict[str, str]:
    """KServe's `<host>-headers`: headers for one host, as a JSON object. ValueError if it is not one."""
    text = environment.get(f"{host}:{port}-headers") or environment.get(f"{host}-headers")
    if not text:
        return {}
    try:
        headers = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the credential {host}-headers is not a JSON object: {error}") from error
    if not isinstance(headers, dict):
        raise ValueError(f"the credential {host}-headers is not a JSON object")
    return {str(name): _text(value) for name, value in headers.items()}


def _google_key(content: str) -> dict[str, Any]:
    """A service account's key, or a user's refresh token: what gcsfs takes as it is."""
    try:
        key = json.loads(content)
    except ValueError as error:
        raise ValueError(f"the Google credentials in the Secret are not JSON: {error}") from error
    kind = key.get("type") if isinstance(key, dict) else None
    if kind not in ("service_account", "authorized_user"):
        raise ValueError(
            f"the Google credentials in the Secret are of the type {kind!r}, not service_account or authorized_user"
        )
    return dict(key)


def _s3_endpoint(env: Mapping[str, str]) -> str | None:
    """`AWS_ENDPOINT_URL`, or KServe's `S3_ENDPOINT` (a host) with `S3_USE_HTTPS`."""
    if url := env.get("AWS_ENDPOINT_URL"):
        return url
    host = env.get("S3_ENDPOINT")
    if not host or "://" in host:
        return host or None
    return f"{'https' if _truth(env.get('S3_USE_HTTPS'), default=True) else 'http'}://{host}"


def _ca_bundle(env: Mapping[str, str]) -> str | None:
    """The path of the certificates to trust: the Secret's, or the cluster's ConfigMap mounted as KServe mounts it."""
    if bundle := env.get("AWS_CA_BUNDLE"):
        return bundle
    if env.get("CA_BUNDLE_CONFIGMAP_NAME"):
        return f"{env.get('CA_BUNDLE_VOLUME_MOUNT_POINT', '/etc/ssl/custom-certs')}/cabundle.crt"
    return None


def _document(environment: Mapping[str, str], name: str) -> dict[str, Any]:
    try:
        document = json.loads(environment.get(name) or "{}")
    except ValueError as error:
        raise ValueError(f"the storage secret in {name} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ValueError(f"the storage secret in {name} is not a JSON object")
    return document


def _truth(text: str | None, *, default: bool = False) -> bool:
    return default if not text else text.strip().lower() not in ("0", "false", "no", "off")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
