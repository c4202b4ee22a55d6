"""`mitoda view`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mitoda.cli.options import AxesOption, DestOption, VoxelSizeOption
from mitoda.cli.show import InputArgument, open_input

SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
"""Variables one of which is set where Qt can open a window on Linux."""


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
    from mitoda.volumes import Volume, open_values

    try:
        import napari
    except ImportError as error:
        raise InputError(
            f"napari cannot be imported ({error}); install it with: pip install 'mitoda[view]'"
        ) from error
    if sys.platform == "linux" and not any(os.environ.get(name) for name in SCREENS):
        raise InputError(
            "napari needs a screen, and this session has none (DISPLAY is not set); run mitoda view on a desktop, or "
            "write a page with mitoda segment --report page.html"
        )
    stack = open_input(volume, voxel_size, axes, False, dest)
    layers: dict[str, Volume] = {}
    for path in labels or []:
        short = Path(path).stem
        layers[path if short in layers else short] = open_values(path)
    show_in_napari(napari, stack, layers)
