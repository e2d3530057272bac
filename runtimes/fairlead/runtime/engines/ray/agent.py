"""Stands in for an agent that the raylet wants and serving does not: says that it has no ports, and ends with the raylet.

Called as Ray's own agent would be, with that one's path first: `python agent.py …/agent.py --session-dir=… --node-id=… …`.
Imports as little as it can: it costs 5 MB in place of 120.
"""

from __future__ import annotations

import os
import sys
import time

PORTS = {
    "agent.py": ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"),
    "main.py": ("runtime_env_agent_port",),
}
"""Which ports the raylet waits for, by the name of the agent's script."""
NO_PORT = "-1"


def main(script: str, arguments: list[str]) -> None:
    raylet = os.getppid()
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if "=" in argument)
    for port in PORTS[os.path.basename(script)]:  # noqa: PTH119 - pathlib takes as long to import as all the rest
        path = f"{flags['session-dir']}/{port}_{flags['node-id']}"
        with open(path + ".new", "w") as file:  # noqa: PTH123
            file.write(NO_PORT)
        os.rename(path + ".new", path)  # noqa: PTH104
    while os.getppid() == raylet:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
