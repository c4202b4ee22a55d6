"""`mitoda measure`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import counted, counting, print_table, say, stdout, warn
from mitoda.cli.options import AxesOption, OverwriteOption, VoxelSizeOption

if TYPE_CHECKING:
    from mitoda.evaluation.instance_table import Measures


def measure(
    labels: Annotated[
        str, typer.Argument(help="One number for each mitochondrion, as 'mitoda instances' writes them.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Table to write (.csv), one line a mitochondrion.")
    ] = None,
    image: Annotated[Path | None, typer.Option(help="The stack, for mean grey values.")] = None,
    histograms: Annotated[
        Path | None, typer.Option(help="Picture to write (.png): histograms of the main columns.")
    ] = None,
    include_cut: Annotated[
        bool,
        typer.Option(
            "--include-cut", help="Let mitochondria that the border of the stack cuts count in means."
        ),
    ] = False,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the summary.")] = False,
    overwrite: OverwriteOption = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Measure each mitochondrion in micrometres: size, surface, shape, skeleton, grey value."""
    import json

    from mitoda.evaluation.measuring import measure as run
    from mitoda.plotting import histogram_figure, write_png
    from mitoda.volumes import open_values, open_volume
    from mitoda.volumes.files import check_output

    inputs = [Path(labels), *([image] if image else [])]
    for path, suffix in ((output, ".csv"), (histograms, ".png")):
        if path is not None:
            check_output(path, inputs, overwrite, suffix)
    found = run(
        open_values(labels, axes=axes),
        image=None if image is None else open_volume(image, axes=axes),
        voxel_size=voxel_size,
        include_cut=include_cut,
        progress=counting("sections", quiet),
    )
    for note in found.notes:
        warn(note)
    if output is not None:
        found.write_csv(output)
        say(f"wrote {output}")
    if histograms is not None and not found.pictured:
        warn(f"there is nothing to draw, so {histograms} was not written")
    elif histograms is not None:
        write_png(histogram_figure({name: found.column(name) for name in found.pictured}), histograms)
        say(f"wrote {histograms}")
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
    else:
        print_summary(found)


def print_summary(found: "Measures") -> None:
    """Print the table of means, and the numbers of the stack."""
    from rich.table import Table

    summary = found.to_dict()
    title = f"mean over {counted(len(found.averaged), 'mitochondrion', 'mitochondria')}"
    table = Table("", title=title)
    for name in ("mean", "sd", "median"):
        table.add_column(name, justify="right")
    for name, values in found.statistics().items():
        table.add_row(name, *("–" if value is None else f"{value:.4g}" for value in values.values()))
    print_table(table)
    cut = len(found.rows) - len(found.whole)
    where = (
        "counted in the means" if found.include_cut else "left out of the means (--include-cut counts them)"
    )
    count = counted(len(found.rows), "mitochondrion", "mitochondria")
    stdout.print(f"{count}, {cut} of them cut by the border and {where}", markup=False)
    for name, value in summary.items():
        if name.endswith("_fraction") or name.startswith("count_per"):
            text = f"{value:.2%}" if name.endswith("_fraction") else f"{value:.4g}, border-corrected"
            stdout.print(f"{name}: {text}", markup=False)
