"""Options that several commands have, with one help text each."""

from typing import Annotated, Any

import typer

Lengths = tuple[float, float, float]
"""Z, Y and X as a person gives them, in nanometres."""
VOLUMES, COMPUTING = "Volumes", "Computing"
"""Panels of the help that several commands have."""


def _nanometres(text: str) -> float:
    """Raises `BadParameter` if this is not a number."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a number; give three, in nanometres, with spaces between them, e.g. 50 4.6 4.6"
        ) from None


def voxel_size_option(*names: str, help: str, panel: str | None = VOLUMES) -> Any:
    """An option of type `Lengths`."""
    return typer.Option(*names, metavar="Z Y X", parser=_nanometres, help=help, rich_help_panel=panel)


def assignment(text: str, option: str) -> tuple[str, str]:
    """Read NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"'{text}' is not NAME=VALUE", param_hint=option)
    return name.strip(), value.strip()


def given_options(context: typer.Context) -> dict[str, str]:
    """Names of the parameters that a person gave on the command line, each with its option as it is written."""
    sources = {one: context.get_parameter_source(one.name or "") for one in context.command.params}
    return {
        one.name or "": one.opts[0]
        for one, source in sources.items()
        if source is not None and source.name == "COMMANDLINE"
    }


AxesOption = Annotated[
    str | None,
    typer.Option(help="Axes as stored, e.g. ZYX or YXZ; overrides the metadata.", rich_help_panel=VOLUMES),
]
DestOption = Annotated[
    str | None, typer.Option(help="Folder of the fetched data sets.", rich_help_panel=VOLUMES)
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=COMPUTING)]
LabelSectionOption = Annotated[
    int | None,
    typer.Option(
        help="Number of the painted section, if --labels is a single section.", rich_help_panel=VOLUMES
    ),
]
OmeZarrOption = Annotated[
    str,
    typer.Option("--ome-zarr", metavar="VERSION", help="OME-Zarr version of .zarr outputs: 0.5 or 0.4."),
]
InvertOption = Annotated[
    bool, typer.Option("--invert", help="Invert the stack's contrast.", rich_help_panel=VOLUMES)
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=COMPUTING)]
ScaleOption = Annotated[
    int | None,
    typer.Option(
        metavar="LEVEL",
        help="Resolution level of an OME-Zarr image; 0 is the finest.",
        rich_help_panel=VOLUMES,
    ),
]
VoxelSizeOption = Annotated[
    Lengths | None, voxel_size_option(help="Voxel size in nanometres; overrides the metadata.")
]
