"""Every error is one line that tells the fix."""

from __future__ import annotations

import pytest

from fairlead.api.errors import InvalidObject, Problem
from fairlead.cli.errors import CliError, explained
from fairlead.kube.errors import ConfigError, api_error
from fairlead.local.supervisor.errors import UpError
from fairlead.runtime.errors import LoadError


def status(code: int, message: str, reason: str = "") -> Exception:
    body = {"message": message, "reason": reason} if reason else message
    return api_error(code, body, where="list inferenceservices.serving.kserve.io in default")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CliError("nothing\nto delete"), "nothing to delete"),
        (UpError("port 8080 is in use"), "port 8080 is in use"),
        (LoadError("there is no model in /m"), "there is no model in /m"),
        (
            InvalidObject("InferenceService", "a", (Problem("spec.x", "unknown field"),)),
            "InferenceService a: spec.x: unknown field",
        ),
        (ConfigError("no kubeconfig"), "no kubeconfig. Start a cluster here with `fairlead up`, or set KUBECONFIG"),
        (status(0, "refused"), "the API server does not answer (refused). Is the cluster up?"),
        (status(401, "Unauthorized"), "the credentials in KUBECONFIG are not accepted"),
        (status(403, 'User "a" cannot list', "Forbidden"), 'User "a" cannot list'),
        (status(404, "404 page not found"), "this cluster does not know that kind; install Fairlead's chart"),
        (status(422, "spec.predictor: no implementation", "Invalid"), "spec.predictor: no implementation"),
        (ModuleNotFoundError("No module named 'ray'", name="ray"), "pip install 'fairlead[local]'"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory"),
        (KeyError("x"), "This is a fault of fairlead; FAIRLEAD_DEBUG=1 shows where"),
    ],
)
def test_it_is_one_line_with_the_fix(error: Exception, words: str) -> None:
    told = explained(error)
    assert words in told
    assert "\n" not in told
