"""`fairlead package`. The manifest is all that it prints to standard output, for `| fairlead apply -f -`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

BASES = ("core", "ray", "torch")


def package(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="The directory with the class and its requirements.")
    ],
    model_class: Annotated[
        str | None, typer.Option("--class", metavar="MODULE:CLASS", help="The model; the only one in DIR if not given.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The service; the project's or DIR's if not given.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option("--tag", "-t", help="The image; NAME:DIGEST-OF-THE-SOURCES if not given.")
    ] = None,
    base: Annotated[
        str,
        typer.Option("--base", help="core, ray, torch (Fairlead's images of this version), or an image made from one."),
    ] = "core",
    build_arg: Annotated[
        list[str] | None,
        typer.Option(
            "--build-arg", metavar="NAME=VALUE", help="For the build, such as PIP_INDEX_URL; may be repeated."
        ),
    ] = None,
    builder: Annotated[
        str | None, typer.Option("--builder", help="docker or podman; the first there is if not given.")
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Push the image to its registry.")] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="CLUSTER", help="Load the image into this kind cluster.")
    ] = None,
    dockerfile: Annotated[bool, typer.Option("--dockerfile", help="Only print the Dockerfile.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Only write Dockerfile and .dockerignore, to this directory.")
    ] = None,
) -> None:
    import yaml

    from fairlead.cli.packaging import builder as images
    from fairlead.cli.packaging import dockerfile as texts
    from fairlead.cli.packaging import project as projects

    project = projects.read(directory, target=model_class, name=name)
    recipe = texts.dockerfile(project, base_image(base))
    own = directory / ".dockerignore"
    ignore = texts.dockerignore(own.read_text() if own.is_file() else "")
    if dockerfile:
        print(recipe, end="")
        return
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "Dockerfile").write_text(recipe)
        (output / "Dockerfile.dockerignore").write_text(ignore)
        _say(f"docker build -f {output / 'Dockerfile'} -t {project.name} {directory}")
        return
    engine = images.program(builder)
    image = tag or f"{project.name}:{project.digest()}"
    _say(f"{project.target} becomes {image}")
    images.build(engine, directory, recipe, ignore, image, build_arg or ())
    _say(
        f"{image} takes {images.size(engine, image) / 1e6:.0f} MB, {base_image(base)} in it {images.size(engine, base_image(base)) / 1e6:.0f} MB"
    )
    if push:
        images.push(engine, image)
    if kind is not None:
        images.load_into_kind(image, kind)
    print(yaml.safe_dump(texts.inference_service(project, image), sort_keys=False), end="")


def base_image(base: str) -> str:
    """`core` -> `fairlead/runtime-core:0.1.0`; anything else is an image's name already."""
    if base not in BASES:
        return base
    from importlib.metadata import version

    return f"fairlead/runtime-{base}:{version('fairlead')}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
