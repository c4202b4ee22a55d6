"""`mitoda score`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.options import DestOption
from mitoda.cli.terminal import say, stderr, stdout

if TYPE_CHECKING:
    from mitoda.evaluation.scoring import VolumeScore


def score(
    prediction: Annotated[
        str, typer.Argument(help="Mask or probability map: a TIFF or a folder of sections.")
    ],
    labels: Annotated[
        str, typer.Argument(help="Labels, non-zero is mitochondrion: a path, or a fetched data set.")
    ],
    threshold: Annotated[float, typer.Option(help="Cut of a probability map.")] = 0.5,
    kind: Annotated[str, typer.Option(help="What the prediction is: auto, mask or probability.")] = "auto",
    ignore: Annotated[Path | None, typer.Option(help="Mask of pixels not to score.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one line per section.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
    workers: Annotated[int, typer.Option(help="Sections scored at the same time.")] = 2,
    dest: DestOption = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Compare a prediction with labels: AP, F1, MCC and IoU per section, their mean, and pooled."""
    import json

    from rich.progress import track

    from mitoda.errors import FileError, InputError
    from mitoda.evaluation.scoring import check_shapes, decide_kind, score_sections, summarise
    from mitoda.volumes import open_labels, open_volume

    if kind not in ("auto", "mask", "probability"):
        raise InputError(f"--kind is auto, mask or probability; got '{kind}'")
    if not 0 < threshold <= 1:
        raise InputError(f"--threshold must lie between 0 and 1; got {threshold}")
    if csv is not None and not csv.absolute().parent.is_dir():
        raise FileError(f"the folder {csv.absolute().parent} does not exist; make it first")
    label_path, ignore_path = find_labels(labels, dest)
    predicted, truth = open_volume(prediction), open_labels(label_path)
    ignored = ignore or ignore_path
    left_out = open_labels(ignored) if ignored is not None else None
    check_shapes(predicted, truth, left_out)
    decided = decide_kind(predicted) if kind == "auto" else kind
    scored = score_sections(predicted, truth, decided, threshold, workers, None, left_out)  # type: ignore[arg-type]
    shown = track(
        scored,
        "scoring",
        total=predicted.shape[0],
        console=stderr,
        transient=True,
        disable=quiet or not stderr.is_terminal,
    )
    result = summarise(shown, decided, threshold)  # type: ignore[arg-type]
    if csv is not None:
        result.write_csv(csv)
        say(f"wrote {csv}")
    if as_json:
        typer.echo(json.dumps(result.to_dict()))
    else:
        _table(result)


def find_labels(labels: str, dest: str | None) -> tuple[Path, Path | None]:
    """Return the files of labels and of what to ignore, for a path or the name of a fetched data set."""
    from mitoda.datasets import is_dataset_spec, resolve
    from mitoda.errors import FileError

    if not is_dataset_spec(labels):
        return Path(labels), None
    split = resolve(labels, dest)
    if split.mask is None:
        raise FileError(f"{labels} was fetched without labels, so nothing can be scored against it")
    return split.mask, split.ignore


def _table(result: "VolumeScore") -> None:
    from rich.table import Table

    table = Table(
        title=f"read as a {result.kind}" + (f", threshold {result.threshold:g}" * (result.kind != "mask"))
    )
    table.add_column("")
    for name in ("AP", "F1", "MCC", "IoU"):
        table.add_column(name, justify="right")
    scored = len(result.sections) - result.empty_sections
    for title, row in (
        (f"mean over {scored} sections", result.mean),
        ("pooled over the volume", result.pooled),
    ):
        values = (row.average_precision, row.f1, row.mcc, row.iou)
        table.add_row(title, *("–" if value != value else f"{value:.4f}" for value in values))
    stdout.print(table)
    stdout.print(
        f"foreground: {result.predicted_share:.2%} predicted, {result.labelled_share:.2%} labelled",
        markup=False,
    )
    if result.empty_sections:
        stdout.print(
            f"{result.empty_sections} sections have no labelled foreground: left out of the mean, counted in the "
            f"pooled row; {result.false_share_in_empty:.2%} of their pixels are predicted as foreground",
            markup=False,
        )
