"""`fairlead up`, `down` and `env`: the laptop cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fairlead.local.supervisor.errors import UpError
from fairlead.local.supervisor.home import HOME_VARIABLE, Home, default_directory

Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory", "-D", help="Where the cluster lives.", envvar=HOME_VARIABLE, show_default="~/.fairlead"
    ),
]


def up(
    files: Annotated[list[Path] | None, typer.Argument(help="Manifests to apply, or directories of them.")] = None,
    directory: Directory = None,
    port: Annotated[int, typer.Option(help="The gateway's port.", min=1, max=65535)] = 8080,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Keep no state.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    fake: Annotated[bool, typer.Option("--fake", hidden=True)] = False,
) -> None:
    """Start a cluster on this machine: API server, operator, gateway, and models as processes."""
    home = _home(directory)
    if detach:
        _detach(home, files or [], port, ephemeral)
        return
    from fairlead.local.supervisor.options import Options
    from fairlead.local.supervisor.run import INTERRUPTED
    from fairlead.local.supervisor.run import up as run

    try:
        raise typer.Exit(run(Options(home, files or [], port, ephemeral, fake)))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def down(directory: Directory = None) -> None:
    """Stop the cluster of this machine, and wait until nothing of it is left."""
    from fairlead.local.supervisor import daemon

    home = _home(directory)
    stopped = daemon.stop(home)
    print(f"no cluster runs in {home.directory}" if stopped is None else f"stopped the cluster in {home.directory}")


def env(directory: Directory = None) -> None:
    """Print what `eval "$(fairlead env)"` sets: KUBECONFIG and FAIRLEAD_URL."""
    home = _home(directory)
    running = home.running()
    if running is None:
        raise UpError(f"no cluster runs in {home.directory}; `fairlead up` starts one")
    print(f"export KUBECONFIG={shlex.quote(running.kubeconfig)}")
    print(f"export FAIRLEAD_URL={shlex.quote(running.url)}")


def _home(directory: Path | None) -> Home:
    return Home((directory or default_directory()).expanduser().absolute())


def _detach(home: Home, files: list[Path], port: int, ephemeral: bool) -> None:
    from fairlead.local.supervisor import daemon

    holder = home.holder()
    if holder is not None:
        raise UpError(f"a cluster already runs in {home.directory} (process {holder}); `fairlead down` ends it")
    arguments = [*map(str, files), "--directory", str(home.directory), "--port", str(port)]
    running = daemon.start(home, [*arguments, *(["--ephemeral"] if ephemeral else [])])
    print(f"Fairlead is up at {running.url} (process {running.pid}); `fairlead down` stops it.")
    print('eval "$(fairlead env)" sets KUBECONFIG and FAIRLEAD_URL.')
