"""What decides a run: the settings of its training, and the plan that `run.json` holds.

Imported by the command line for the defaults, so nothing here imports torch at the top.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from mitoda import __version__
from mitoda.errors import FileError, InputError, check_numbers
from mitoda.training.run_folder import RunFolder
from mitoda.volumes import VoxelSize
from mitoda.volumes.records import read_record, write_record

SCHEDULES: dict[str, Callable[[float], float]] = {
    "poly": lambda progress: (1 - progress) ** 0.9,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}
"""Learning rate as a factor of its start, by the share of the run that is done."""

DEFAULT_MINUTES = 30.0
LABELLED_MINUTES = 3.0
"""Default of a run with painted labels."""
DEFAULT_SOURCE = "vnc3"
"""Source of a run that starts from scratch."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is trained."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    method: str = "mitoda"
    backbone: str = "compact"
    steps: int | None = None
    """Length of the run in steps; with the same number of threads, such a run repeats exactly on a CPU."""
    minutes: float | None = None
    """Length of the run in minutes of training; `DEFAULT_MINUTES` if neither it nor `steps` is given."""
    batch_size: int = 2
    """Pairs of each domain in a step."""
    patch: int = 512
    """Side of the square patches in working pixels."""
    schedule: str = "poly"
    ema_decay: float = 0.995
    """Of the averaged weights, which are the ones saved; lower in the first steps."""
    augmentation: str = "strong"
    histogram_matching: float = 0.0
    """Share of steps in which source patches take the target's grey-value distribution."""
    seed: int = 0
    workers: int = 2
    """Threads that read patches."""
    checkpoint_minutes: float = 3.0
    keep: int = 0
    """Number of averaged weights kept along the run, evenly spaced, each with its label-free scores in the log."""
    assignments: dict[str, str] = field(default_factory=dict)
    """Settings of the method, as text by name."""

    def __post_init__(self) -> None:
        from mitoda.data.augmentation import augmentation_named
        from mitoda.methods import check_backbone, parse_settings
        from mitoda.models.backbones import backbone_named

        if self.steps is None and self.minutes is None:
            object.__setattr__(self, "minutes", DEFAULT_MINUTES)
        elif self.steps is not None and self.minutes is not None:
            raise InputError("give the length of the run either as steps or as minutes, not both")
        check_numbers(
            self,
            steps=(1, 10**9),
            minutes=(0.001, 10**6),
            batch_size=(1, 4096),
            ema_decay=(0, 0.999999),
            histogram_matching=(0, 1),
            seed=(0, 2**32 - 1),
            workers=(1, 256),
            checkpoint_minutes=(0.001, 10**6),
            keep=(0, 1000),
        )
        if self.schedule not in SCHEDULES:
            raise InputError(f"there is no schedule '{self.schedule}'; choose one of: {', '.join(SCHEDULES)}")
        check_backbone(self.method, self.backbone)
        multiple = 16 * backbone_named(self.backbone).grid
        # The coarsest level needs two pixels, for normalisation and discriminators.
        if self.patch < 2 * multiple or self.patch % multiple:
            raise InputError(
                f"patch must be a multiple of {multiple}, at least {2 * multiple}, for the backbone "
                f"'{self.backbone}'; got {self.patch}"
            )
        augmentation_named(self.augmentation)
        parse_settings(self.method, self.assignments)


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run. Lengths are nanometres; None is derived or read from the metadata."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    target: str
    """A fetched data set or a path; for the oracle with labels, like a source."""
    source: str | None = None
    """A fetched data set (`vnc3`, `lucchi:training`) or IMAGES:LABELS. None: none if the run starts from weights, else
    `DEFAULT_SOURCE`."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    more_sources: tuple[str, ...] = ()
    """Further labelled volumes, each drawn from as often as `source`."""
    labels: str | None = None
    """A few painted places of the target: 0 unlabelled, 1 background, 2 mitochondrion; see `data.painted`. They are a
    source, drawn from as often as all others together; with `source_free` the only one."""
    label_section: int | None = None
    """Number of the painted section, if `labels` is a single section."""
    start: str | None = "auto"
    """Weights to start from: "auto" (see `domains.choose_start`), a pretrained name, a file or the folder of a run;
    None starts from scratch."""
    source_free: bool = False
    """Whether there must be no source: the run starts from pretrained weights if `start` is "auto"."""
    source_voxel_size: VoxelSize | None = None
    target_voxel_size: VoxelSize | None = None
    source_stride: int | None = None
    """Sections from one section of a pair to the other."""
    target_stride: int | None = None
    pixel: float | None = None
    """Working pixel size."""
    spacing: float | None = None
    """Distance of the two sections of a pair."""
    invert_source: bool = False
    invert_target: bool = False
    dest: str | None = None
    """Folder of the fetched data sets; None is the usual one."""
    precision: str = "auto"
    version: str = __version__

    def __post_init__(self) -> None:
        strides = (1, 10**6)
        check_numbers(
            self, source_stride=strides, target_stride=strides, pixel=(0.1, 10**5), spacing=(0.1, 10**6)
        )
        if self.label_section is not None and self.labels is None:
            raise InputError("label_section is given without labels")
        if self.source_free and self.start is None:
            raise InputError("training without a source needs weights to start from; give start")
        if self.more_sources and self.source is None:
            raise InputError("more_sources is given without source")

    def extended(self, steps: int | None, minutes: float | None) -> "Plan":
        """Return the plan with another length, if one is given."""
        if steps is None and minutes is None:
            return self
        return replace(self, training=replace(self.training, steps=steps, minutes=minutes))

    def save(self, folder: RunFolder) -> None:
        """Write the plan into the folder of a run."""
        write_record(folder.plan, self)


def load_plan(folder: RunFolder) -> Plan:
    """Read the plan of a run.

    Raises
    ------
    FileError
        If the folder holds no run, or its plan is damaged.
    """
    if not folder.plan.is_file():
        raise FileError(f"{folder.path} holds no run of 'mitoda adapt': there is no {folder.plan.name} in it")
    return read_record(folder.plan, Plan)
