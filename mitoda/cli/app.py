"""The application: the commands by name. Each imports what it needs when it runs, so that help comes at once."""

from typing import Annotated

import typer

from mitoda import __version__
from mitoda.cli.adapt import adapt
from mitoda.cli.bench import bench
from mitoda.cli.check import check
from mitoda.cli.demo import demo
from mitoda.cli.fetch import fetch
from mitoda.cli.instances import instances
from mitoda.cli.measure import measure
from mitoda.cli.score import score
from mitoda.cli.segment import segment
from mitoda.cli.show import inspect, weights
from mitoda.cli.suggest import suggest
from mitoda.cli.view import view

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Mitochondria in electron-microscopy stacks that nobody has labelled.",
    epilog="Start with: mitoda demo",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mitoda {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for command in (
    demo, fetch, adapt, suggest, segment, view, check, instances, measure, score, bench, inspect, weights,
):  # fmt: skip
    app.command()(command)
