from __future__ import annotations

from datetime import UTC, datetime, timedelta

from fairlead.kube.conditions import is_true, remove_condition, set_condition

NOW = datetime(2026, 11, 21, 11, 18, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def test_a_new_condition_is_added_behind_the_others() -> None:
    conditions = set_condition([], "PredictorReady", "True", "", "", NOW)
    conditions = set_condition(conditions, "Ready", "False", "NoRoute", "no gateway yet", NOW)
    assert conditions == [
        {"type": "PredictorReady", "status": "True", "lastTransitionTime": "2026-11-21T11:18:00Z"},
        {
            "type": "Ready",
            "status": "False",
            "reason": "NoRoute",
            "message": "no gateway yet",
            "lastTransitionTime": "2026-11-21T11:18:00Z",
        },
    ]


def test_the_transition_time_moves_only_with_the_status() -> None:
    first = set_condition([], "Ready", "False", "NoRoute", "", NOW)
    reason_changed = set_condition(first, "Ready", "False", "NoPods", "none is ready", LATER)
    assert reason_changed[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
    assert reason_changed[0]["reason"] == "NoPods"
    status_changed = set_condition(reason_changed, "Ready", "True", "", "", LATER)
    assert status_changed == [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T11:23:00Z"}]


def test_the_given_conditions_are_left_as_they_are() -> None:
    given = [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-21T11:18:00Z"}]
    set_condition(given, "Ready", "True", "", "", LATER)
    remove_condition(given, "Ready")
    assert given == [{"type": "Ready", "status": "False", "lastTransitionTime": "2026-11-21T11:18:00Z"}]


def test_a_condition_that_is_missing_or_unknown_is_not_true() -> None:
    unknown = set_condition([], "Ready", "Unknown", "", "", NOW)
    assert not is_true(unknown, "Ready")
    assert not is_true([], "Ready")
    assert is_true(set_condition(unknown, "Ready", "True", "", "", NOW), "Ready")
    assert remove_condition(unknown, "Ready") == []
