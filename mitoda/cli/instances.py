"""`mitoda instances`."""

from pathlib import Path
from typing import Annotated

import typer

from mitoda.cli.display import counted, counting, say
from mitoda.cli.options import AxesOption, OmeZarrOption, OverwriteOption, VoxelSizeOption

NoSplitOption = Annotated[
    bool, typer.Option("--no-split", help="Number connected components; do not split touching mitochondria.")
]
MinNeckOption = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Split where the neck is thinner than this share of the thinner mitochondrion. Default: 0.6.",
    ),
]


def instances(
    mask: Annotated[str, typer.Argument(help="Mask, non-zero is mitochondrion: a file, Zarr or folder.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Labels to write: .tif, .zarr, .h5 or .mrc.")
    ],
    probability: Annotated[
        Path | None,
        typer.Option(help="Probability map of the mask; a low probability makes a neck count as thinner."),
    ] = None,
    no_split: NoSplitOption = False,
    min_neck: MinNeckOption = None,
    min_size: Annotated[int, typer.Option(help="Leave out mitochondria of fewer voxels.")] = 0,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    ome_zarr: OmeZarrOption = "0.5",
    overwrite: OverwriteOption = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print warnings only.")] = False,
) -> None:
    """Number the mitochondria of a mask one by one, and split those that touch."""
    from mitoda.postprocessing.basins import MIN_NECK
    from mitoda.postprocessing.instances import check_labels_path, write_instances
    from mitoda.postprocessing.instances import instances as number
    from mitoda.volumes import open_labels, open_values
    from mitoda.volumes.zarr_pages import checked_version

    version = checked_version(ome_zarr)
    inputs = [Path(mask), *([probability] if probability else [])]
    check_labels_path(output, inputs, overwrite)
    found = number(
        open_labels(mask, voxel_size=voxel_size, axes=axes),
        probability=None if probability is None else open_values(probability, axes=axes),
        split=not no_split,
        min_neck=MIN_NECK if min_neck is None else min_neck,
        min_size=min_size,
        progress=counting("sections", quiet),
    )
    write_instances(output, found, overwrite=overwrite, zarr_version=version)
    if not quiet:
        say(instances_summary(output, found.count, found.components))


def instances_summary(output: Path, count: int, components: int) -> str:
    """What was found, in one line."""
    form = "" if count < 1 << 16 else ", as 32-bit BigTIFF, because 16 bits hold 65,535"
    found = counted(count, "mitochondrion", "mitochondria")
    return f"wrote {output}: {found} in {counted(components, 'connected component')}{form}"
