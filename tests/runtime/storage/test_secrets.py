"""Secrets that a pod refers to whole, told apart by their keys."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.runtime.storage import FetchOptions, StorageError, fetch
from fairlead.runtime.storage.credentials import gs_options, http_headers, s3_options
from fairlead.runtime.storage.secrets import spelled_out

PREFIX = "FAIRLEAD_FETCH_"


def pod(*secrets: dict[str, str], **more: str) -> dict[str, str]:
    """The environment that references to these Secrets become."""
    numbered = {f"{PREFIX}{number}_{key}": value for number, s in enumerate(secrets) for key, value in s.items()}
    return {**numbered, **{f"{PREFIX}{key}": value for key, value in more.items()}}


@pytest.mark.parametrize(
    "keys", [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("awsAccessKeyID", "awsSecretAccessKey")]
)
def test_an_s3_secret_with_what_its_annotations_said(keys: tuple[str, str]) -> None:
    secret = {keys[0]: "id\n", keys[1]: "key\n", "AWS_ENDPOINT_URL": "http://minio:9000", "S3_VERIFY_SSL": "0"}
    options = s3_options(spelled_out(pod(secret)))
    assert (options["key"], options["secret"], options["endpoint_url"]) == ("id", "key", "http://minio:9000")
    assert options["client_kwargs"] == {"verify": False}


def test_names_of_keys_may_be_the_installations_own() -> None:
    names = json.dumps(
        {"s3AccessKeyIDName": "user", "s3SecretAccessKeyName": "pass", "gcsCredentialFileName": "g.json"}
    )
    found = spelled_out(pod({"user": "id", "pass": "key"}, {"g.json": '{"type": "service_account"}'}, KEY_NAMES=names))
    assert found == {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "GOOGLE_APPLICATION_CREDENTIALS_JSON": '{"type": "service_account"}',
    }


def test_annotations_of_a_secret_that_is_not_for_s3_count_for_nothing() -> None:
    assert spelled_out(pod({"HF_TOKEN": "hf\n", "AWS_ENDPOINT_URL": "http://x"})) == {"HF_TOKEN": "hf"}


def test_a_google_key_is_taken_without_a_file() -> None:
    key = {"type": "service_account", "project_id": "p"}
    environment = spelled_out(pod({"gcloud-application-credentials.json": json.dumps(key)}))
    assert gs_options(environment) == {"token": key}


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "are not JSON"), ('{"type": "other"}', "of the type 'other'"), ("[]", "of the type None")],
)
def test_a_google_key_that_is_none_says_what_it_is(content: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gs_options({"GOOGLE_APPLICATION_CREDENTIALS_JSON": content})


def test_azures_old_names_become_the_new_ones() -> None:
    assert spelled_out(pod({"AZ_CLIENT_ID": "c", "AZ_TENANT_ID": "t"})) == {
        "AZURE_CLIENT_ID": "c",
        "AZURE_TENANT_ID": "t",
    }


@pytest.mark.parametrize("host", ["models.example.com", "models.example.com:8443"])
def test_headers_for_a_host(host: str) -> None:
    environment = spelled_out(pod({"https-host": f"{host}\n", "headers": '{"X-Token": "t"}'}))
    assert http_headers(environment, "models.example.com", 8443) == {"X-Token": "t"}


def test_registries_of_all_secrets_are_known_together() -> None:
    secrets = [{".dockerconfigjson": json.dumps({"auths": {name: {"auth": "x"}}})} for name in ("a", "b")]
    assert json.loads(spelled_out(pod(*secrets))["DOCKER_CONFIG_JSON"]) == {
        "auths": {"a": {"auth": "x"}, "b": {"auth": "x"}}
    }
    with pytest.raises(ValueError, match="is not a Docker configuration"):
        spelled_out(pod({".dockerconfigjson": "{"}))


def test_what_belongs_to_no_secret_keeps_its_name() -> None:
    assert spelled_out(pod(STORAGE_CONFIG="{}") | {"PATH": "/bin"}) == {"STORAGE_CONFIG": "{}", "PATH": "/bin"}


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=20), max_size=6))
def test_no_prefixed_variable_is_left_whatever_a_secret_holds(secret: dict[str, str]) -> None:
    secret.pop(".dockerconfigjson", None)
    assert not [name for name in spelled_out(pod(secret)) if name.startswith(PREFIX)]


# --- storage.path -----------------------------------------------------------------------------------------------------


def named(**config: Any) -> dict[str, str]:
    return {"STORAGE_CONFIG": json.dumps(config)}


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "nothing says which type of storage it is in; give storage.key an entry whose `type` is one of s3"),
        (named(type="hdfs"), "storage type 'hdfs' is not supported"),
        (named(type="s3"), "storage of type s3 needs a bucket; set `bucket`"),
        ({"STORAGE_CONFIG": "{"}, "the storage secret in STORAGE_CONFIG is not JSON"),
    ],
)
def test_a_storage_entry_that_does_not_lead_anywhere_says_why(
    environment: dict[str, str], says: str, tmp_path: Any
) -> None:
    with pytest.raises(StorageError, match=says) as raised:
        fetch("<scheme-placeholder>://iris", tmp_path, FetchOptions(environment=environment))
    assert str(raised.value).startswith("cannot fetch iris: ")
