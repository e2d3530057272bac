"""The commands: their names, their help and where their code is, so that `fairlead --help` imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Entry(NamedTuple):
    name: str
    target: str
    """`module:function`; the function's parameters are the command's."""
    help: str
    panel: str
    passes_on: bool = False
    """Whether all arguments, options too, go to the function as they are."""


CLUSTER, SERVICES, MODELS, MACHINE = "A cluster on this machine", "Services", "Models", "This machine"

ENTRIES = (
    Entry("up", "fairlead.cli.up:up", "Start a cluster here: API server, operator, gateway and models, without containers.", CLUSTER),
    Entry("down", "fairlead.cli.up:down", "End the cluster that `up -d` started.", CLUSTER),
    Entry("env", "fairlead.cli.up:env", 'Print KUBECONFIG and FAIRLEAD_URL for `eval "$(fairlead env)"`.', CLUSTER),
    Entry("apply", "fairlead.cli.manifests:apply", "Create or change what is in manifests.", SERVICES),
    Entry("delete", "fairlead.cli.manifests:delete", "Delete services, or what is in manifests.", SERVICES),
    Entry("get", "fairlead.cli.services:get", "List services: address, readiness, revisions and traffic.", SERVICES),
    Entry("describe", "fairlead.cli.services:describe", "Tell all about one service: conditions, revisions, model, events.", SERVICES),
    Entry("predict", "fairlead.cli.predict:predict", "Send a request to a service and print the answer.", SERVICES),
    Entry("traffic", "fairlead.cli.traffic:traffic", "Show or change the split between revisions; promote or roll back.", SERVICES),
    Entry("autoscale", "fairlead.cli.autoscale:autoscale", "Explain the last hour of a service's scaling: a chart, a table, and what other settings would have done.", SERVICES),
    Entry("logs", "fairlead.cli.logs:logs", "Print what a service's pods have logged.", SERVICES),
    Entry("serve", "fairlead.cli.models:serve", "Serve one model from this terminal, without a cluster.", MODELS, True),
    Entry("inspect", "fairlead.cli.models:inspect", "Tell what a model file is, and what it expects.", MODELS),
    Entry("package", "fairlead.cli.package:package", "Build a container image of a model class and its requirements.", MODELS),
    Entry("doctor", "fairlead.cli.doctor:doctor", "Tell what is missing on this machine and how to get it.", MACHINE),
    Entry("completion", "fairlead.cli.completion:completion", "Print the script that completes commands in your shell.", MACHINE),
)  # fmt: skip


class LazyCommand(TyperCommand):
    """Knows its name and help; becomes the real command when it is called or completed."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(name=entry.name, callback=None, help=entry.help, rich_help_panel=entry.panel)
        self._entry = entry

    def make_context(self, *args: Any, **extra: Any) -> Any:
        return load(self._entry).make_context(*args, **extra)


def load(entry: Entry) -> Any:
    """The real command."""
    module, _, function = entry.target.partition(":")
    app = typer.Typer(add_completion=False)
    settings = {"ignore_unknown_options": True, "help_option_names": []} if entry.passes_on else None
    app.command(entry.name, help=entry.help, context_settings=settings)(getattr(import_module(module), function))
    return typer.main.get_command(app)


class Commands(TyperGroup):
    """All of `ENTRIES`, in their order."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{**attributes, "commands": {entry.name: LazyCommand(entry) for entry in ENTRIES}})

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(version("fairlead"))
        raise typer.Exit


_app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")


@_app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Model serving on Kubernetes, or on this machine: KServe's InferenceService with canary rollouts, without the weight."""


command = typer.main.get_command(_app)
