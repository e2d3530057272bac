"""A status as people read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fairlead.cli.errors import CliError
from fairlead.cli.render import age, event_time, short_revision, summary, why_not_ready
from fairlead.cli.traffic import change, waiting

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def service(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    metadata = {"name": "iris", "namespace": "default", "generation": 2, "resourceVersion": "5"}
    return {"metadata": metadata, "spec": {"predictor": {"sklearn": {}}, **(spec or {})}, "status": status}


def test_a_new_service_is_unknown_because_the_operator_has_not_seen_it() -> None:
    row = summary(service(), NOW)
    assert (row.ready, row.reason, row.shares) == ("Unknown", "the operator has not looked at it yet", [])


def test_the_models_own_failure_is_the_reason() -> None:
    broken = service(
        conditions=[{"type": "Ready", "status": "False", "message": "predictor is not ready"}],
        modelStatus={"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"reason": "ModelLoadFailed", "message": "no file\nhere"}},
    )  # fmt: skip
    assert why_not_ready(broken) == "ModelLoadFailed: no file here"


def test_an_old_failure_is_not_the_reason_of_a_new_state() -> None:
    again = service(
        conditions=[{"type": "Ready", "status": "Unknown", "reason": "Progressing", "message": "loading"}],
        modelStatus={"transitionStatus": "InProgress", "lastFailureInfo": {"message": "old"}},
    )
    assert why_not_ready(again) == "Progressing: loading"


def test_a_condition_below_ready_tells_where_ready_does_not() -> None:
    waits = service(
        conditions=[
            {"type": "Ready", "status": "False"},
            {"type": "IngressReady", "status": "False", "reason": "NoGateway"},
        ],
    )
    assert why_not_ready(waits) == "NoGateway"


@pytest.mark.parametrize(
    ("created", "told"),
    [("2026-11-21T11:59:15Z", "45s"), ("2026-11-21T11:48:00Z", "12m"), ("2026-11-21T07:00:00Z", "5h"), ("2026-11-18T12:00:00Z", "3d"),
     ("2026-11-21T11:58:30Z", "90s"), ("2026-11-21T13:00:00Z", "0s"), (None, "")],
)  # fmt: skip
def test_ages_are_short(created: str | None, told: str) -> None:
    assert age(created, NOW) == told


@pytest.mark.parametrize(
    ("revision", "short"),
    [
        ("iris-predictor-00002", "00002"),
        ("iris-v2-predictor", "v2-predictor"),
        ("other-predictor-00001", "other-predictor-00001"),
        ("", ""),
    ],
)
def test_revisions_are_told_without_the_services_name(revision: str, short: str) -> None:
    assert short_revision(revision, "iris") == short


def test_events_of_either_api_have_a_time() -> None:
    assert event_time({"eventTime": "b", "lastTimestamp": None}) == "b"
    assert event_time({"series": {"lastObservedTime": "c"}, "eventTime": "b"}) == "c"
    assert event_time({"metadata": {"creationTimestamp": "a"}}) == "a"


# --- What `fairlead traffic` changes -----------------------------------------------------------------------------

HELD = {"op": "test", "path": "/metadata/resourceVersion", "value": "5"}
TWO = [{"trafficPercent": 10, "predictor": {"name": name}} for name in ("a", "b")]


def test_nothing_asked_changes_nothing() -> None:
    assert change(service()) == []


def test_every_change_holds_only_if_nobody_else_changed_the_service() -> None:
    for wish in ({"percent": 5}, {"rollback": True}):
        assert change(service(), **wish)[0] == HELD


def test_a_canary_of_several_must_be_named() -> None:
    with pytest.raises(CliError, match="which canary\\? Give --canary with one of: a, b"):
        change(service({"canary": TWO}), percent=5)
    with pytest.raises(CliError, match="there is no canary 'c'"):
        change(service({"canary": TWO}), percent=5, canary="c")


def test_a_named_canary_gets_its_percentage_or_goes() -> None:
    both = service({"canary": TWO})
    assert change(both, percent=5, canary="b")[1:] == [
        {"op": "replace", "path": "/spec/canary/1/trafficPercent", "value": 5}
    ]
    assert change(both, rollback=True, canary="a")[1:] == [{"op": "remove", "path": "/spec/canary/0"}]


def test_the_last_canary_takes_the_list_with_it() -> None:
    assert change(service({"canary": TWO[:1]}), rollback=True)[1:] == [{"op": "remove", "path": "/spec/canary"}]


def test_a_share_that_waits_for_readiness_is_told() -> None:
    traffic = [
        {"revisionName": "iris-predictor-00002", "latestRevision": True, "percent": 0},
        {"revisionName": "iris-predictor-00001", "latestRevision": False, "percent": 100},
    ]
    isvc = service(
        {"predictor": {"sklearn": {}, "canaryTrafficPercent": 20}}, components={"predictor": {"traffic": traffic}}
    )
    assert waiting(isvc) == "00002 gets its 20% when it is ready: fairlead describe iris"
    traffic[0]["percent"], traffic[1]["percent"] = 20, 80
    assert waiting(isvc) == ""
