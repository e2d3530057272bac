"""`GET /v1/autoscaling/{namespace}/{name}` on the operator's port: an InferenceService's last hour of decisions, to be replayed.

    {"clock", "time", "workloads": [{"workload", "revision", "history": …}]}

`history` is `fairlead.autoscaling.history.History.document`; its times are of the operator's clock, which read `clock` at `time`.
An operator that does not lead knows nothing and answers 503.
"""

from __future__ import annotations

import orjson
from aiohttp import web

from fairlead.controllers.autoscaler.loop import Autoscaler
from fairlead.kube.objects import Key

PATH = "/v1/autoscaling/{namespace}/{name}"


def route(autoscaler: Autoscaler) -> web.RouteDef:
    async def explain(request: web.Request) -> web.Response:
        if not autoscaler.running:
            return web.json_response({"message": "another operator leads"}, status=503)
        service = Key(request.match_info["namespace"], request.match_info["name"])
        body = orjson.dumps(autoscaler.explanation(service), default=list)  # named tuples
        return web.Response(body=body, content_type="application/json")

    return web.get(PATH, explain)
