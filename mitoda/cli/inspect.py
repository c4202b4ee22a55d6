"""`mitoda inspect`."""

from typing import Annotated

import typer

from mitoda.cli.options import DestOption
from mitoda.cli.terminal import stdout


def inspect(
    volume: Annotated[
        str, typer.Argument(metavar="INPUT", help="TIFF, folder of sections, image, or a fetched data set.")
    ],
    axes: Annotated[
        str | None, typer.Option(help="Axes as stored, e.g. ZYX; overrules the metadata.")
    ] = None,
    dest: DestOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how mitoda reads a stack: shape, type, voxel size, grey values, contrast."""
    import json

    from mitoda.cli.segment import open_input
    from mitoda.inference.inspection import inspect_volume

    found = inspect_volume(open_input(volume, None, axes, False, dest))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        stdout.print(f"{name:22} {value}", markup=False)
