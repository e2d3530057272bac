"""schemathesis against a running server: whatever it makes of the OpenAPI document, the answer is one the document names."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.runtime.conftest import Doubler, start

# Not among them: that every body the schema allows is accepted (a schema cannot say that data fits shape).
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def operations():
    running = start([Doubler("double")], grpc_port=None)
    api = schemathesis.openapi.from_url(f"http://{running.http}/openapi.json")
    yield [each.ok() for each in api.get_all_operations()]
    running.stop()


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_by_its_schema(operations, data):
    operation = data.draw(st.sampled_from(operations), label="operation")
    data.draw(operation.as_strategy(), label="case").call_and_validate(checks=CHECKS)
