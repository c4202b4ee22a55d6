"""How a run is done, and the schedules of its learning rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mitoda.data.augmentation import augmentation_named
from mitoda.errors import InputError
from mitoda.methods import check_backbone, method_named
from mitoda.models.backbones import backbone_named

SCHEDULES: dict[str, Callable[[float], float]] = {
    "poly": lambda progress: (1 - progress) ** 0.9,
    "cosine": lambda progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "constant": lambda progress: 1.0,
}
"""Learning rate as a factor of its start, by the share of the run that is done."""


@dataclass(frozen=True)
class TrainingSettings:
    """How a run is done. What it is done on are the pairs; what is saved with it is `checkpoints.WeightsInfo`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    method: str = "isc"
    backbone: str = "compact"
    steps: int | None = None
    """Length of the run in steps; a run of given steps is the same every time on the CPU."""
    minutes: float | None = None
    """Length of the run in minutes of training; used where `steps` is not given."""
    batch_size: int = 2
    patch: int = 512
    """Side of the square patches in working pixels."""
    schedule: str = "poly"
    ema_decay: float = 0.995
    """Of the averaged weights, which are the ones saved; young averages forget faster."""
    augmentation: str = "strong"
    histogram_matching: float = 0.0
    """Share of steps in which source patches take the target's grey-value distribution."""
    seed: int = 0
    workers: int = 2
    """Threads that read patches."""
    checkpoint_minutes: float = 3.0
    keep: int = 0
    """Averaged weights to keep along the way, evenly spaced, as `weights-STEP.safetensors`, each with its label-free
    scores in the log; for studying selection, never used to choose."""
    assignments: dict[str, str] = field(default_factory=dict)
    """Settings of the method, as `--set name=value` gives them."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise InputError("give the length of the run either as --steps or as --minutes")
        if (self.steps is not None and self.steps < 1) or (self.minutes is not None and self.minutes <= 0):
            raise InputError("the run must be longer than nothing: --steps from 1, --minutes above 0")
        if self.schedule not in SCHEDULES:
            raise InputError(f"there is no schedule '{self.schedule}'; choose one of: {', '.join(SCHEDULES)}")
        if self.keep < 0:
            raise InputError(f"--keep is a number of checkpoints, 0 or more; got {self.keep}")
        if self.batch_size < 1:
            raise InputError(f"--batch-size must be at least 1; got {self.batch_size}")
        if self.workers < 1:
            raise InputError(f"--workers must be at least 1; got {self.workers}")
        check_backbone(self.method, self.backbone)
        multiple = 16 * backbone_named(self.backbone).grid
        # Two pixels at the coarsest level: of one alone, normalisation and discriminators could make nothing.
        if self.patch < 2 * multiple or self.patch % multiple:
            raise InputError(
                f"--patch must be a multiple of {multiple}, at least {2 * multiple}, for the backbone "
                f"'{self.backbone}'; got {self.patch}"
            )
        if not 0 <= self.histogram_matching <= 1:
            raise InputError(f"--histogram-matching is a share from 0 to 1; got {self.histogram_matching}")
        if not 0 <= self.ema_decay < 1:
            raise InputError(f"--ema must be at least 0 and below 1; got {self.ema_decay}")
        augmentation_named(self.augmentation)
        cls, implied = method_named(self.method)
        cls.Settings.parse({**implied, **self.assignments})
