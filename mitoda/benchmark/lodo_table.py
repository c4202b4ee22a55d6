"""Scores of leaving one data set out: a row for each scored volume, and the table over seeds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from mitoda import __version__
from mitoda.benchmark.left_out import ADAPT_MINUTES, GENERAL, STAGES
from mitoda.benchmark.table import mean_of, spread_of
from mitoda.evaluation.metrics import Confusion, rank_mask, rank_section
from mitoda.evaluation.objects import LARGE_NM3, SMALL_NM3, SPECK_NM3, ObjectCount, SizeClass, count_objects
from mitoda.evaluation.scoring import none_if_nan
from mitoda.training.settings import LABELLED_MINUTES
from mitoda.volumes import Volume, VoxelSize
from mitoda.volumes.files import atomic_write

PROTOCOL = (
    "general: trained on the labels of the other data sets. adapt: general adapted to the images that were left out, "
    f"without labels and without a source, {ADAPT_MINUTES:g} minutes by default. painted: general trained with the "
    f"labels of the middle section, which is not scored, {LABELLED_MINUTES:g} minutes by default.",
    "F1 and IoU are unweighted means over the sections with labelled foreground, of the mask that 'mitoda segment' "
    "writes by default; precision and recall are of all its pixels together. 'change' is F1 above general on the same "
    "sections, the lowest of the seeds.",
    "'map' is F1 of the probabilities from the default level on, before boundaries are moved and components removed; "
    "'best' is the highest such F1 of all levels, with its level. Their difference is what the choice of level costs.",
    "Objects found: components of the labels, joined through sections along faces, edges and corners, of which the "
    f"mask covers at least half. small: below {SMALL_NM3 / 1e9:g} µm³, large: from {LARGE_NM3 / 1e9:g} µm³; components "
    f"below {SPECK_NM3 / 1e9:g} µm³ are not counted.",
)
"""Explanation of the table's numbers."""


@dataclass(frozen=True)
class VolumeScores:
    """Scores of one volume, from 0 to 1; None where one does not exist."""

    sections: int
    """Number of scored sections."""
    f1: float | None
    """Of the mask that `segment` writes by default: unweighted mean over the sections with labelled foreground."""
    iou: float | None
    """Likewise."""
    precision: float | None
    """Of the mask, all pixels of the scored sections together."""
    recall: float | None
    """Likewise."""
    pooled_f1: float | None
    """Likewise."""
    map_f1: float | None
    """F1, mean over sections, of the probabilities from the mask's level on, before boundaries move and components
    are removed."""
    best_f1: float | None
    """The highest such F1 of the levels 1/255 to 1."""
    best_level: float | None
    objects: dict[SizeClass, ObjectCount]
    """See `count_objects`."""
    section_f1: dict[int, float | None]
    """F1 of the mask by section; None without labelled foreground."""


@dataclass(frozen=True)
class LodoRow:
    """Scores of a stage on one volume. The names of the fields are those of the JSON."""

    left_out: str
    stage: str
    seed: int
    volume: str
    sources: str
    """Labelled volumes that this stage or the weights it starts from learnt from."""
    steps: int
    seconds: float
    """Of the training of this stage."""
    painted: int | None
    """Number of the painted section, which is not scored."""
    threshold: float
    """Level of the mask."""
    min_size: int
    snap: bool
    warnings: tuple[str, ...]
    """Of the segmentation."""
    scores: VolumeScores
    change: float | None = None
    """F1 above that of `general` with the same seed on the same sections; None if it was not scored."""
    version: str = __version__


def score_volume(
    mask: Volume,
    probability: Volume,
    labels: Volume,
    voxel_size: VoxelSize,
    threshold: float,
    painted: int | None = None,
) -> VolumeScores:
    """Score a mask and the uint8 probability map it was made from, without the painted section."""
    found, truth = (np.stack([one.read(k) != 0 for k in range(one.shape[0])]) for one in (mask, labels))
    sections = [k for k in range(len(truth)) if k != painted]
    scores = {k: rank_mask(found[k], truth[k])[0] for k in sections}
    labelled = [k for k in sections if scores[k].has_label]
    ranked = [rank_section(probability.read(k), truth[k], threshold) for k in labelled]
    by_level = np.mean([ranking.f1_from_bin for _, ranking in ranked], axis=0) if ranked else np.zeros(0)
    best = 1 + int(np.argmax(by_level[1:])) if ranked else 0  # from bin 0 on, everything is foreground
    pooled = sum((score.confusion for score in scores.values()), Confusion())
    return VolumeScores(
        sections=len(sections),
        f1=mean_of([scores[k].f1 for k in labelled]),
        iou=mean_of([scores[k].iou for k in labelled]),
        precision=none_if_nan(pooled.precision),
        recall=none_if_nan(pooled.recall),
        pooled_f1=none_if_nan(pooled.f1),
        map_f1=mean_of([score.f1 for score, _ in ranked]),
        best_f1=float(by_level[best]) if ranked else None,
        best_level=best / (len(by_level) - 1) if ranked else None,
        objects=count_objects(found, truth, voxel_size, sections),
        section_f1={k: scores[k].f1 if scores[k].has_label else None for k in sections},
    )


def with_changes(rows: Sequence[LodoRow]) -> list[LodoRow]:
    """Compare each row with that of `general`, over the sections that both scored."""
    start = {(row.volume, row.seed): row.scores.section_f1 for row in rows if row.stage == GENERAL}
    compared = []
    for row in rows:
        before = start.get((row.volume, row.seed), {})
        changes = [
            f1 - earlier
            for section, f1 in row.scores.section_f1.items()
            if f1 is not None and (earlier := before.get(section)) is not None
        ]
        compared.append(replace(row, change=None if row.stage == GENERAL else mean_of(changes)))
    return compared


def write_rows(path: Path, rows: Sequence[LodoRow]) -> None:
    """Write one line of JSON for each row."""
    with atomic_write(path) as partial:
        partial.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")


@dataclass(frozen=True)
class LodoLine:
    """A line of the table: one stage on one volume, over seeds."""

    left_out: str
    volume: str
    stage: str
    seeds: int
    mean: dict[str, float | None]
    """Of f1, iou, precision, recall, map_f1, best_f1 and best_level, over the seeds."""
    spread: float | None
    """Standard deviation of F1 over the seeds (n − 1); None for one seed."""
    change: float | None
    """The lowest of the seeds."""
    objects: dict[SizeClass, float | None]
    """Share found, of the objects of all seeds together; None if there is none of the class."""


SHOWN = ("f1", "iou", "precision", "recall", "map_f1", "best_f1", "best_level")


def tabulate_lodo(rows: Sequence[LodoRow]) -> list[LodoLine]:
    """Average rows over seeds, in the order of what is left out, its volumes and the stages."""
    groups: dict[tuple[str, str, str], list[LodoRow]] = {}
    for row in sorted(rows, key=lambda row: STAGES.index(row.stage)):
        groups.setdefault((row.left_out, row.volume, row.stage), []).append(row)
    places = list(dict.fromkeys((row.left_out, row.volume) for row in rows))
    ordered = sorted(groups.items(), key=lambda item: places.index(item[0][:2]))
    return [_line(*names, own) for names, own in ordered]


def _line(left_out: str, volume: str, stage: str, rows: list[LodoRow]) -> LodoLine:
    values = {name: [x for row in rows if (x := getattr(row.scores, name)) is not None] for name in SHOWN}
    changes = [row.change for row in rows if row.change is not None]
    objects: dict[SizeClass, float | None] = {}
    for size in rows[0].scores.objects:
        counts = [row.scores.objects[size] for row in rows]
        total = sum(count.total for count in counts)
        objects[size] = sum(count.found for count in counts) / total if total else None
    return LodoLine(
        left_out,
        volume,
        stage,
        len(rows),
        {name: mean_of(every) for name, every in values.items()},
        spread_of(values["f1"]),
        min(changes, default=None),
        objects,
    )
