"""`mitoda suggest`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import command, say, stack_options, stdout
from mitoda.cli.options import (
    VOLUMES,
    DestOption,
    DeviceOption,
    InvertOption,
    LabelSectionOption,
    OverwriteOption,
    VoxelSizeOption,
)
from mitoda.cli.show import InputArgument, open_input
from mitoda.inference.settings import SUGGESTED_SIDE_NM

if TYPE_CHECKING:
    import numpy as np

    from mitoda.inference.suggest import Suggestion
    from mitoda.models.model import Model
    from mitoda.volumes import Volume


def suggest(
    volume: InputArgument,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Label file to write and to paint in (.tif).")
    ],
    count: Annotated[int, typer.Option(help="Number of rectangles.")] = 4,
    side: Annotated[
        float, typer.Option(metavar="NM", help="Side of a rectangle in nanometres.")
    ] = SUGGESTED_SIDE_NM,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Labels painted earlier: they are copied, and their places left out.",
            rich_help_panel=VOLUMES,
        ),
    ] = None,
    label_section: LabelSectionOption = None,
    weights: Annotated[
        str, typer.Option(help="Pretrained weights by name, a .safetensors file, or a run.")
    ] = "default",
    voxel_size: VoxelSizeOption = None,
    invert: InvertOption = False,
    dest: DestOption = None,
    device: DeviceOption = "auto",
    overwrite: OverwriteOption = False,
) -> None:
    """Suggest where to paint a few labels, and write a label file with these places outlined."""
    import numpy as np

    from mitoda.data.painted import label_sections, open_painted
    from mitoda.inference.suggest import suggest_rectangles
    from mitoda.models.model import load_model
    from mitoda.models.weights import find_weights
    from mitoda.plotting import grid_figure, write_png
    from mitoda.postprocessing.instances import check_labels_path
    from mitoda.volumes import write_sections
    from mitoda.volumes.files import check_output
    from mitoda.volumes.volume import origin_of

    picture = output.with_suffix(".png")
    inputs = [Path(volume), find_weights(weights), *([Path(labels)] if labels else [])]
    check_labels_path(output, inputs, overwrite)
    check_output(picture, inputs, overwrite)
    stack = open_input(volume, voxel_size, None, invert, dest)
    painted = None if labels is None else open_painted(labels, stack, section=label_section)
    model = load_model(weights, device)
    rectangles = suggest_rectangles(stack, model, count, side_nm=side, painted=painted)
    sections = label_sections(stack, rectangles, painted)
    kind, origin = np.dtype(np.uint8), origin_of(stack)
    write_sections(output, sections, stack.shape, kind, stack.voxel_size, overwrite=overwrite, origin=origin)
    write_png(grid_figure(_pictures(stack, model, rectangles)), picture)
    for number, one in enumerate(rectangles, 1):
        stdout.print(f"{number}  {one.text}", markup=False)
    known = stack_options(voxel_size, invert, dest)
    then = command("adapt", "--target", volume, "--labels", output, *known)
    say(
        f"wrote {output} and {picture}; paint within the outlines of {output}: 1 background, 2 mitochondrion, 0 where "
        f"you do not know. Then: {then}"
    )


def _pictures(
    stack: "Volume", model: "Model", rectangles: "list[Suggestion]"
) -> "list[tuple[str, np.ndarray]]":
    """Each rectangle with what the network finds in it."""
    from mitoda.inference.streaming import predict_section
    from mitoda.plotting import overlay
    from mitoda.volumes.voxel_size import known_voxel_size

    threshold, pictures = model.info.for_sections(known_voxel_size(stack)[0]).threshold, []
    for number, one in enumerate(rectangles, 1):
        mask = predict_section(stack, model, one.section)[one.rows, one.columns] >= threshold
        grey = stack.read(one.section, one.rows, one.columns)
        pictures.append((f"{number}: {one.text}", overlay(grey, mask)))
    return pictures
