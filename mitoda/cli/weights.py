"""`mitoda weights`."""

from typing import Annotated

import typer

from mitoda.cli.terminal import stdout


def weights(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the list.")] = False,
) -> None:
    """List the weights that come with mitoda: training data and their licence, voxel size, measured scores."""
    import json
    from dataclasses import asdict

    from mitoda.models.weights import DEFAULT_WEIGHTS, list_weights, read_info

    found = {name: read_info(path) for name, path in list_weights().items()}
    if as_json:
        typer.echo(json.dumps({name: asdict(info) for name, info in found.items()}, indent=2))
        return
    for name, info in found.items():
        stdout.print(f"[bold]{name}[/bold]{' (default)' if name == DEFAULT_WEIGHTS else ''}")
        facts = {
            "method": f"{info.method} on {info.backbone}, {info.steps} steps in {info.seconds / 60:.0f} minutes",
            "trained on": f"{info.source} → {info.target}" if info.target else info.source,
            "pixel": f"{info.pixel[0]:g} × {info.pixel[1]:g} nm, pairs {info.spacing:g} nm apart",
            "licence": info.licence,
            **info.notes,
        }
        for fact, value in facts.items():
            stdout.print(f"  {fact:15} {value}", markup=False)
