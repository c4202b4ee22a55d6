"""`mitoda weights`."""

from typing import Annotated

import typer

from mitoda.cli.terminal import stdout


def weights(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the bundled weights: what they learnt from, on which terms, at which voxel size."""
    import json
    from dataclasses import asdict

    from rich.table import Table

    from mitoda.bundled import DEFAULT, list_weights
    from mitoda.checkpoints import read_info

    found = {name: read_info(path) for name, path in list_weights().items()}
    if as_json:
        typer.echo(json.dumps({name: asdict(info) for name, info in found.items()}, indent=2))
        return
    table = Table()
    for column in (
        "name",
        "method",
        "source → target",
        "pixel, spacing (nm)",
        "licence of the data",
        "scores and notes",
    ):
        table.add_column(column, overflow="fold")
    for name, info in found.items():
        table.add_row(
            f"{name} (default)" if name == DEFAULT else name,
            f"{info.method}, {info.backbone}",
            f"{info.source} → {info.target}" if info.target else info.source,
            f"{info.pixel[0]:g} × {info.pixel[1]:g}, {info.spacing:g}",
            info.licence,
            "\n".join(f"{key}: {value}" for key, value in info.notes.items()),
        )
    stdout.print(table)
