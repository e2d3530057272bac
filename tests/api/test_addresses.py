"""What the operator lets through is what a model server can send to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.api.addresses import is_http
from fairlead.api.component import Logger
from fairlead.runtime.operations.event_sender import Receiver
from fairlead.runtime.settings import PayloadLogging


@pytest.mark.parametrize("url", ["http://a", "https://a.b:8443/x?y=z", "http://user:pass@a/", "http://[::1]:80/"])
def test_addresses_of_http(url: str) -> None:
    assert is_http(url)


@pytest.mark.parametrize(
    "url",
    ["", "a:80", "//a", "ftp://a", "http://", "http:///x", "http://:80/", "http://a:b/", "http://a:70000/", "http://a:0/", "http://[a/", "http://ä/"],
)  # fmt: skip
def test_what_is_none(url: str) -> None:
    assert not is_http(url)


@given(st.text(alphabet="htps:/.@[]%?# a1é0", max_size=24).map(lambda text: f"http://{text}"))
def test_a_logger_that_the_operator_takes_ends_no_model_server(url: str) -> None:
    if Logger(url=url).reachable():
        Receiver(PayloadLogging.parse(json.dumps({"url": url})).url)
