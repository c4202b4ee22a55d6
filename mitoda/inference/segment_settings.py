"""What to segment into, and how: the settings of one segmentation, and whether its files may be written."""

from dataclasses import dataclass, field
from pathlib import Path

from mitoda.errors import FileError, InputError
from mitoda.inference.predictor import InferenceSettings


@dataclass(frozen=True)
class SegmentationSettings:
    """What to write and how to get from probabilities to it."""

    output: Path
    """Of the mask."""
    probability: Path | None = None
    """Of the probability map, where one is wanted."""
    threshold: float = 0.5
    min_size: int = 0
    """Components of fewer voxels, joined through sections, become background."""
    snap: bool = False
    """Whether each mitochondrion's boundary is moved to its own dark ring; see `rings`."""
    boundary: float = 0.0
    """Nanometres by which the mask's boundary is moved outward, inward where negative."""
    mask_value: int = 255
    """Of foreground in the mask."""
    overwrite: bool = False
    resume: bool = False
    inference: InferenceSettings = field(default_factory=InferenceSettings)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(f"--threshold must lie between 0 and 1; got {self.threshold}")
        if self.min_size < 0:
            raise InputError(f"--min-size is a number of voxels, 0 or more; got {self.min_size}")
        if not 1 <= self.mask_value <= 255:
            raise InputError(f"--mask-value must be from 1 to 255; got {self.mask_value}")
        if self.probability is not None and self.probability.resolve() == self.output.resolve():
            raise InputError(f"mask and probability map cannot both be written to {self.output}")

    @property
    def two_passes(self) -> bool:
        """Whether the mask needs what only the end of the stack tells."""
        return self.min_size > 0 or self.snap


def check_outputs(settings: SegmentationSettings) -> None:
    """Refuse before any work what could not be written at its end."""
    for path in (settings.output, settings.probability):
        if path is None:
            continue
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise InputError(f"{path} must end in .tif or .tiff; mitoda writes TIFF")
        if path.is_dir():
            raise FileError(f"{path} is a folder; give the name of a file")
        # A second pass that was interrupted leaves a probability map that is done.
        taken_up = settings.resume and settings.two_passes and path == settings.probability
        if path.exists() and not settings.overwrite and not taken_up:
            raise FileError(f"{path} exists; give another name, or --overwrite to replace it")
        if not path.parent.is_dir():
            raise FileError(f"the folder {path.parent} does not exist; make it first: mkdir -p {path.parent}")
