"""`mitoda inspect` and `mitoda weights`: show a stack, and the pretrained weights."""

from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import stdout
from mitoda.cli.options import AxesOption, DestOption, ScaleOption

if TYPE_CHECKING:
    from mitoda.volumes import Volume, VoxelSize

InputArgument = Annotated[
    str,
    typer.Argument(
        metavar="INPUT", help="File, Zarr or folder of sections; stack.h5:/key; or a fetched data set."
    ),
]


def inspect(
    volume: InputArgument,
    axes: AxesOption = None,
    scale: ScaleOption = None,
    dest: DestOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how mitoda reads a stack: shape, type, voxel size, grey values, contrast."""
    import json

    from mitoda.inference.checks import inspect_volume
    from mitoda.volumes.volume import remark_of

    stack = open_input(volume, None, axes, False, dest, scale)
    found = inspect_volume(stack)
    if remark := remark_of(stack):
        found = {**found, "remark": remark}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        stdout.print(f"{name:22} {value}", markup=False)


def open_input(
    volume: str,
    voxel_size: "VoxelSize | None",
    axes: str | None,
    invert: bool,
    dest: str | None,
    scale: int | None = None,
    pixel: tuple[float, float] | None = None,
) -> "Volume":
    """Open a stack by path, or by the name of a fetched data set; see `open_volume`."""
    from mitoda.datasets import is_dataset_spec, resolve
    from mitoda.volumes import open_volume

    if is_dataset_spec(volume):
        split = resolve(volume, dest)
        return open_volume(split.volume, voxel_size=voxel_size or split.voxel_size, axes=axes, invert=invert)
    return open_volume(volume, voxel_size=voxel_size, axes=axes, invert=invert, scale=scale, pixel=pixel)


def weights(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the list.")] = False,
) -> None:
    """List the weights that come with mitoda: training data and their licence, voxel size, measured scores."""
    import json
    from dataclasses import asdict

    from rich.markup import escape

    from mitoda.models.weights import DEFAULT_WEIGHTS, list_weights, read_info

    found = {name: read_info(path) for name, path in list_weights().items()}
    if as_json:
        typer.echo(json.dumps({name: asdict(info) for name, info in found.items()}, indent=2))
        return
    for name, info in found.items():
        stdout.print(f"[bold]{escape(name)}[/bold]{' (default)' if name == DEFAULT_WEIGHTS else ''}")
        facts = {
            "method": f"{info.method} on {info.backbone}, {info.steps} steps in {info.seconds / 60:.0f} minutes",
            "trained on": f"{info.source} → {info.target}" if info.target else info.source,
            "pixel": f"{info.pixel[0]:g} × {info.pixel[1]:g} nm, pairs {info.spacing:g} nm apart",
            "licence": info.licence,
            **info.notes,
        }
        for fact, value in facts.items():
            stdout.print(f"  {fact:15} {value}", markup=False)
