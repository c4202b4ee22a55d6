"""`mitoda view`."""

from pathlib import Path
from typing import Annotated

import typer

from mitoda.cli.options import AxesOption, DestOption, VoxelSizeOption
from mitoda.cli.show import InputArgument, open_input


def view(
    volume: InputArgument,
    labels: Annotated[
        list[str] | None, typer.Argument(help="Masks or instance numbers to draw over the stack.")
    ] = None,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    dest: DestOption = None,
) -> None:
    """Open a stack with its masks in napari; sections are read when they are shown."""
    from mitoda.errors import InputError
    from mitoda.plotting.viewer import show_in_napari
    from mitoda.volumes import open_values

    try:
        import napari
    except ImportError as error:
        raise InputError(
            f"napari cannot be imported ({error}); install it with: pip install 'mitoda[view]'"
        ) from error
    stack = open_input(volume, voxel_size, axes, False, dest)
    layers = {Path(path).stem: open_values(path) for path in labels or []}
    show_in_napari(napari, stack, layers)
