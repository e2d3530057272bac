"""The texts that make an image: Dockerfile and .dockerignore; and the manifest that serves it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from fairlead.api import names
from fairlead.cli.packaging.project import SKIPPED, Project

MODEL = "/model"
USER = "65532:65532"
_PIP = "RUN --mount=type=cache,target=/root/.cache/pip \\\n    python -m pip install --root-user-action=ignore "


def dockerfile(project: Project, base: str) -> str:
    """What seldom changes comes first: a new version of the class alone is a layer of its size."""
    module_path = f"{MODEL}/{project.source}".rstrip("/")
    parts = [f"# Made by `fairlead package`: {project.target} on Fairlead's model server.\nFROM {base}"]
    # Read-only for the server, whose user comes at the end.
    parts.append("USER 0:0\nARG PIP_INDEX_URL\nARG PIP_EXTRA_INDEX_URL\nARG PIP_FIND_LINKS")
    if project.system_packages:
        packages = " ".join(shlex.quote(package) for package in project.system_packages)
        parts.append(
            f"RUN apt-get update && apt-get install -y --no-install-recommends {packages} && rm -rf /var/lib/apt/lists/*"
        )
    if project.requirements_file:
        parts.append(f"COPY {project.requirements_file} {MODEL}/\n{_PIP}-r {MODEL}/{project.requirements_file}")
    elif project.requirements:
        parts.append(_PIP + " ".join(shlex.quote(requirement) for requirement in project.requirements))
    parts.append(
        f"COPY . {MODEL}/\nENV PYTHONPATH={module_path}:${{PYTHONPATH}}\nWORKDIR {MODEL}\nRUN python -m compileall -q {MODEL}"
    )
    parts.append(
        f"# A class that cannot be imported is told here, and not by a pod.\nUSER {USER}\nRUN {_import_check(project.target)}"
    )
    entrypoint = ["python", "-m", "fairlead.runtime", f"--model_class={project.target}"]
    parts.append(f"ENTRYPOINT {json.dumps(entrypoint)}\nCMD {json.dumps([f'--model_name={project.name}'])}")
    return "\n\n".join(parts) + "\n"


def dockerignore(own: str = "") -> str:
    """What stays out; `own`: the lines of the user's .dockerignore."""
    lines = [f"**/{pattern}" for pattern in SKIPPED]
    return "\n".join([*lines, "Dockerfile", *own.splitlines()]) + "\n"


def _import_check(target: str) -> str:
    code = f"from fairlead.runtime.frameworks.custom import resolve; resolve({target!r})"
    return f'python -c "{code}"'


def inference_service(project: Project, image: str) -> dict[str, Any]:
    """The manifest that serves the image, over HTTP and gRPC."""
    container = {
        "name": names.PREDICTOR_CONTAINER,
        "image": image,
        "args": [f"--model_name={project.name}"],
        "ports": [
            {"name": "http", "containerPort": names.HTTP_PORT, "protocol": "TCP"},
            {"name": "h2c", "containerPort": names.GRPC_PORT, "protocol": "TCP"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": f"{names.SERVING_GROUP}/{names.INFERENCE_SERVICE_VERSION}",
        "kind": "InferenceService",
        # The server is Fairlead's: it is ready when it says so, and may be given a storageUri to fetch by itself.
        "metadata": {"name": project.name, "annotations": {names.STORAGE_MODE: "runtime"}},
        "spec": {"predictor": {"containers": [container]}},
    }
