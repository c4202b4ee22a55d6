"""`mitoda score`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mitoda.cli.display import counted, counting, print_table, say, stdout, warn
from mitoda.cli.options import DestOption

if TYPE_CHECKING:
    from mitoda.evaluation.instance_scores import InstanceScore
    from mitoda.evaluation.scoring import VolumeScore


def score(
    prediction: Annotated[
        str, typer.Argument(help="Mask or probability map: a TIFF or a folder of sections.")
    ],
    labels: Annotated[
        str, typer.Argument(help="Labels, non-zero is mitochondrion: a path, or a fetched data set.")
    ],
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Compare mitochondria one by one; both files hold instance numbers."
        ),
    ] = False,
    threshold: Annotated[float, typer.Option(help="Threshold of a probability map.")] = 0.5,
    kind: Annotated[
        Literal["auto", "mask", "probability"], typer.Option(help="What the prediction is.")
    ] = "auto",
    ignore: Annotated[Path | None, typer.Option(help="Mask of pixels not to score.")] = None,
    ignore_value: Annotated[int | None, typer.Option(help="Label of pixels not to score.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one line per section.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    workers: Annotated[int, typer.Option(help="Sections scored at the same time.")] = 2,
    dest: DestOption = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Compare a prediction with labels: AP, F1, MCC and IoU per section, their mean, and pooled."""
    import json

    from mitoda.datasets import is_dataset_spec, resolve
    from mitoda.errors import FileError
    from mitoda.evaluation import scoring
    from mitoda.evaluation.instance_scores import score_instances
    from mitoda.volumes.files import check_output

    split = resolve(labels, dest) if is_dataset_spec(labels) else None
    label_path = Path(labels) if split is None else split.mask
    if label_path is None:
        raise FileError(f"{labels} was fetched without labels, so nothing can be scored against it")
    ignored = ignore if ignore or split is None else split.ignore
    if csv is not None:
        check_output(csv, [Path(prediction), label_path, *([ignored] if ignored else [])], True, ".csv")
    if instances:
        if csv is not None:
            raise typer.BadParameter("instances have no scores per section; leave it out", param_hint="--csv")
        matched = score_instances(
            prediction,
            label_path,
            ignore=ignored,
            ignore_value=ignore_value,
            progress=counting("scoring", quiet),
        )
        typer.echo(json.dumps(matched.to_dict())) if as_json else print_instance_scores(matched)
        return
    result = scoring.score(
        prediction,
        label_path,
        threshold=threshold,
        kind=kind,
        ignore=ignored,
        ignore_value=ignore_value,
        workers=workers,
        progress=counting("scoring", quiet),
    )
    for note in result.notes:
        warn(note)
    if csv is not None:
        result.write_csv(csv)
        say(f"wrote {csv}")
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    else:
        print_scores(result)


def print_instance_scores(result: "InstanceScore") -> None:
    """Print the table of scores by IoU, and the numbers of mitochondria."""
    from rich.table import Table

    names = {
        "average_precision": "AP",
        "panoptic_quality": "PQ",
        "f1": "F1",
        "precision": "precision",
        "recall": "recall",
    }
    table = Table("IoU from", title="mitochondria one by one")
    for title in (*names.values(), "found", "false", "missed"):
        table.add_column(title, justify="right")
    for one in result.matched:
        values = (getattr(one, name) for name in names)
        scores = ("–" if value != value else f"{value:.4f}" for value in values)
        table.add_row(f"{one.iou:g}", *scores, *map(str, (one.tp, one.fp, one.fn)))
    print_table(table)
    stdout.print(
        f"mitochondria: {result.predicted} predicted, {result.labelled} labelled; {result.splits} labelled ones are "
        f"split, {result.merges} predicted ones merge several",
        markup=False,
    )


def print_scores(result: "VolumeScore") -> None:
    """Print the table of mean and pooled scores."""
    from rich.table import Table

    threshold = "" if result.kind == "mask" else f", threshold {result.threshold:g}"
    table = Table("", title=f"read as a {result.kind}{threshold}")
    for name in ("AP", "F1", "MCC", "IoU"):
        table.add_column(name, justify="right")
    scored = len(result.sections) - result.empty_sections
    for title, row in (
        (f"mean over {counted(scored, 'section')}", result.mean),
        ("all pixels pooled", result.pooled),
    ):
        values = (row.average_precision, row.f1, row.mcc, row.iou)
        table.add_row(title, *("–" if value != value else f"{value:.4f}" for value in values))
    print_table(table)
    stdout.print(
        f"foreground: {result.predicted_share:.2%} predicted, {result.labelled_share:.2%} labelled",
        markup=False,
    )
    if result.empty_sections:
        stdout.print(
            f"{counted(result.empty_sections, 'section')} without labelled foreground: left out of the mean, in the "
            f"pooled row; {result.false_share_in_empty:.2%} of their pixels are predicted as foreground",
            markup=False,
        )
