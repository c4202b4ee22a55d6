"""`mitoda check`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import command, counted, counting, print_table, say, stack_options, stdout
from mitoda.cli.options import AxesOption, DestOption, VoxelSizeOption, given_options
from mitoda.cli.show import open_input

if TYPE_CHECKING:
    from mitoda.evaluation.answers import Answer
    from mitoda.evaluation.estimates import Estimate, SpotCheck
    from mitoda.volumes import Volume

PAGE, RESULT = "Page to answer", "Result"
FOR_PAGE, FOR_RESULT = {"mask", "output", "objects", "boxes", "seed"}, {"answers", "as_json", "paint"}
"""What is given for one of the two only."""


def check(
    context: typer.Context,
    volume: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="Stack: TIFF, folder of sections, or a fetched data set."),
    ] = None,
    mask: Annotated[
        str | None, typer.Argument(metavar="MASK", help="Mask of the stack, or a volume of instance numbers.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Page to write (.html).", rich_help_panel=PAGE)
    ] = None,
    objects: Annotated[int, typer.Option(min=1, help="Found objects to judge.", rich_help_panel=PAGE)] = 60,
    boxes: Annotated[
        int, typer.Option(min=1, help="Boxes to search for missed mitochondria.", rich_help_panel=PAGE)
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the sample.", rich_help_panel=PAGE)] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing files.", rich_help_panel=PAGE)
    ] = False,
    answers: Annotated[
        Path | None, typer.Option(help="Answers saved by the page: print the result.", rich_help_panel=RESULT)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the tables.", rich_help_panel=RESULT)
    ] = False,
    paint: Annotated[
        Path | None,
        typer.Option(
            help="With --answers and INPUT: label file to write (.tif), with the bad objects and the places of missed "
            "mitochondria outlined, for 'adapt --labels'.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    voxel_size: VoxelSizeOption = None,
    axes: AxesOption = None,
    dest: DestOption = None,
) -> None:
    """Measure how good a mask is: a page with a random sample to answer, then precision, recall and F1 by object."""
    from mitoda.errors import InputError
    from mitoda.evaluation.answers import read_answers
    from mitoda.evaluation.estimates import summarise_answers
    from mitoda.plotting.html import check_page_path
    from mitoda.postprocessing.instances import check_labels_path

    given = given_options(context).keys()
    if answers is None:
        if volume is None or mask is None or output is None or given & FOR_RESULT:
            raise typer.BadParameter("give a stack, its mask and -o PAGE.html; or --answers answers.csv")
        check_page_path(output, [Path(volume), Path(mask)], overwrite)
        stack = open_input(volume, voxel_size, axes, False, dest)
        _write_page(stack, mask, output, objects, boxes, seed)
        return
    if given & FOR_PAGE or (volume is None) != (paint is None):
        raise typer.BadParameter(
            "give --answers alone, or with INPUT and --paint, without a mask or a sample"
        )
    if paint is not None:
        check_labels_path(paint, [Path(str(volume)), answers], overwrite)
    found = read_answers(answers)
    result = summarise_answers(found)
    _print_json(result) if as_json else _print_tables(result)
    if volume is not None and paint is not None:
        known = stack_options(voxel_size, False, dest)
        _write_places(found, open_input(volume, voxel_size, axes, False, dest), volume, paint, known)
    if result.lacking:
        raise InputError(
            f"no precision, recall and F1 yet: {result.lacking}; answer both halves in the page and save again"
        )


def _write_page(stack: "Volume", mask: str, output: Path, objects: int, boxes: int, seed: int) -> None:
    """Write the page, and say what it shows."""
    from mitoda.evaluation.check_page import write_check_page
    from mitoda.evaluation.spot_check import draw_boxes, draw_objects
    from mitoda.postprocessing.found_objects import FoundObjects
    from mitoda.volumes import open_values
    from mitoda.volumes.volume import check_same_shape
    from mitoda.volumes.voxel_size import known_voxel_size

    size = known_voxel_size(stack)
    values = open_values(mask)
    check_same_shape(stack, values)
    found = FoundObjects(values)
    classes, items = draw_objects(found.numbers, found.voxels, found.starts, found.stops, objects, seed)
    items += draw_boxes(stack, boxes, seed)
    write_check_page(output, stack, found, items, size, seed, counting("sections"))
    judged = sum(not item.is_box for item in items)
    parts = f" ({', '.join(f'{one.found} {one.name}' for one in classes)})" if len(classes) > 1 else ""
    say(
        f"{output}: {judged} of {len(found.numbers)} found objects{parts} and {len(items) - judged} of "
        f"{items[-1].total} boxes. Open it in a browser, answer, save the answers; then: "
        f"{command('check', '--answers', 'answers.csv')}"
    )


def _print_json(result: "SpotCheck") -> None:
    import json
    from dataclasses import asdict

    more = {name: getattr(result, name) for name in ("objects_to_halve", "boxes_to_halve")}
    typer.echo(json.dumps(asdict(result) | more))


def _print_tables(result: "SpotCheck") -> None:
    from rich.table import Table

    if result.f1 is not None:
        table = Table("by object", "estimate", "95 % interval")
        for name, one in (("precision", result.precision), ("recall", result.recall), ("F1", result.f1)):
            table.add_row(name, *_cells(one))
        print_table(table)
    table = Table("size", "µm³")
    for name in ("found", "judged", "good", "precision"):
        table.add_column(name, justify="right")
    for group in result.classes:
        sizes = f"{group.smallest_um3:.2g}–{group.largest_um3:.2g}"
        interval = "{} ({})".format(*_cells(group.precision))
        table.add_row(group.name, sizes, f"{group.found}", f"{group.judged}", f"{group.good}", interval)
    print_table(table)
    unsure = sum(group.unsure for group in result.classes)
    if unsure:
        stdout.print(f"{counted(unsure, 'object')} unsure: left out, as if not drawn")
    stdout.print(
        f"boxes: {result.searched} of {result.boxes} searched, {result.missed} mitochondria missed in them"
    )
    if result.f1 is not None:
        stdout.print(
            f"to halve the intervals: judge {result.objects_to_halve} more objects, search {result.boxes_to_halve} "
            "more boxes (larger --objects and --boxes with the same --seed keep the answers)",
            markup=False,
        )


def _cells(estimate: "Estimate | None") -> tuple[str, str]:
    if estimate is None:
        return "–", "–"
    return f"{estimate.value:.2f}", f"{estimate.low:.2f}–{estimate.high:.2f}"


def _write_places(
    answers: "list[Answer]", stack: "Volume", volume: str, paint: Path, known: list[str]
) -> None:
    """Write the label file to paint in, and say how to go on with the stack of this name and these options."""
    import numpy as np

    from mitoda.data.painted import label_sections
    from mitoda.evaluation.answers import places_to_paint
    from mitoda.inference.settings import SUGGESTED_SIDE_NM
    from mitoda.volumes import write_sections
    from mitoda.volumes.volume import origin_of
    from mitoda.volumes.voxel_size import known_voxel_size

    places = places_to_paint(answers, stack.shape, known_voxel_size(stack)[1:], SUGGESTED_SIDE_NM)
    if not places:
        say("no object is bad and no mitochondrion is missed, so there is nothing to paint")
        return
    sections = label_sections(stack, places)
    kind, origin = np.dtype(np.uint8), origin_of(stack)
    write_sections(paint, sections, stack.shape, kind, stack.voxel_size, overwrite=True, origin=origin)
    for one in places:
        say(one.text)
    say(
        f"wrote {paint}; paint within its outlines: 1 background, 2 mitochondrion, 0 where you do not know. Then: "
        f"{command('adapt', '--target', volume, '--labels', paint, *known)}"
    )
