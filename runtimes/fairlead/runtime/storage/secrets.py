"""What the Secrets that a pod refers to are for, told by their keys as KServe tells it.

The operator refers to each Secret whole, under `FAIRLEAD_FETCH_<number>_`, without having read it. Here, in the process that fetches, the keys
become the usual variables:

    AWS_SECRET_ACCESS_KEY (or as configured)      S3, with what the Secret's annotations said
    gcloud-application-credentials.json           Google
    AZURE_CLIENT_ID, AZ_CLIENT_ID                 Azure, an application
    AZURE_STORAGE_ACCESS_KEY                      Azure, an account's key
    https-host, headers                           headers for one host
    HF_TOKEN                                      the Hugging Face Hub
    .dockerconfigjson                             container registries
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from fairlead.api.names import FETCH_ENV_PREFIX, FETCH_KEY_NAMES_ENV

GOOGLE_JSON = "GOOGLE_APPLICATION_CREDENTIALS_JSON"
"""A Google credentials file's content: a file that is mounted would be there for the model's code too."""
DOCKER_CONFIG = "DOCKER_CONFIG_JSON"
"""Registries' credentials, of all Secrets, as in a Docker `config.json`."""

_NUMBERED = re.compile(re.escape(FETCH_ENV_PREFIX) + r"(\d+)_(.+)", re.DOTALL)
_S3_KEYS = ("AWS_", "S3_", "awsAnonymousCredential")
_OLD_AZURE = "AZ_"


def spelled_out(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with what the Secrets mean instead of the Secrets' own keys. They win over the container's variables."""
    own = {name: value for name, value in environment.items() if not name.startswith(FETCH_ENV_PREFIX)}
    secrets: dict[int, dict[str, str]] = {}
    for name, value in environment.items():
        if name == FETCH_KEY_NAMES_ENV or not name.startswith(FETCH_ENV_PREFIX):
            continue
        if match := _NUMBERED.fullmatch(name):
            secrets.setdefault(int(match[1]), {})[match[2]] = value
        else:
            own[name.removeprefix(FETCH_ENV_PREFIX)] = value
    key_names = json.loads(environment.get(FETCH_KEY_NAMES_ENV) or "{}")
    registries: dict[str, object] = {}
    for _, secret in sorted(secrets.items()):
        own.update(_variables(secret, key_names))
        registries.update(_registries(secret))
    return {**own, DOCKER_CONFIG: json.dumps({"auths": registries})} if registries else own


def _variables(secret: Mapping[str, str], key_names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield from _s3(secret, key_names)
    google = secret.get(key_names.get("gcsCredentialFileName", "gcloud-application-credentials.json"))
    if google:
        yield GOOGLE_JSON, google
    for name, value in secret.items():
        if name.startswith("AZURE_"):
            yield name, value
        elif name.startswith(_OLD_AZURE):
            yield f"AZURE_{name.removeprefix(_OLD_AZURE)}", value
    if "https-host" in secret and "headers" in secret:
        yield f"{secret['https-host'].strip()}-headers", secret["headers"]
    if "HF_TOKEN" in secret:
        yield "HF_TOKEN", secret["HF_TOKEN"].strip()


def _s3(secret: Mapping[str, str], key_names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Nothing of a Secret without a key to S3: its annotations are then of no account, as in KServe."""
    key = _first(secret, key_names.get("s3SecretAccessKeyName"), "AWS_SECRET_ACCESS_KEY", "awsSecretAccessKey")
    if key is None:
        return
    yield from ((name, value) for name, value in secret.items() if name.startswith(_S3_KEYS))
    yield "AWS_SECRET_ACCESS_KEY", key
    yield (
        "AWS_ACCESS_KEY_ID",
        _first(secret, key_names.get("s3AccessKeyIDName"), "AWS_ACCESS_KEY_ID", "awsAccessKeyID") or "",
    )


def _first(secret: Mapping[str, str], *names: str | None) -> str | None:
    """Keys pasted with a line's end are a common mistake, and never meant."""
    return next((secret[name].strip() for name in names if name is not None and name in secret), None)


def _registries(secret: Mapping[str, str]) -> dict[str, object]:
    """ValueError if it is not JSON."""
    try:
        auths = json.loads(secret.get(".dockerconfigjson") or "{}").get("auths") or {}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"the Secret's .dockerconfigjson is not a Docker configuration: {error}") from error
    return dict(auths)
