"""Segment a volume into files: threshold, small components, writing behind the computation, resuming."""

import hashlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from mitoda.checkpoints import WeightsInfo
from mitoda.components import StreamedComponents
from mitoda.errors import FileError, InputError
from mitoda.geometry import Geometry
from mitoda.inference import InferenceSettings, check_volume, predict_sections
from mitoda.networks import PairNetwork, backbone_named
from mitoda.volumes import SectionWriter, Volume, open_labels, read_partial

PROBABILITY_LEVELS = 255
"""Probability maps are written as uint8: probability × 255, rounded."""


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


@dataclass(frozen=True)
class SectionDone:
    """One more section is segmented."""

    section: int
    sections: int
    foreground: float
    """Share of its pixels that is mitochondrion, before small components are dropped."""
    resumed: bool
    """It was there from an interrupted run."""


@dataclass(frozen=True)
class Segmented:
    """The whole volume is segmented and written."""

    sections: int
    foreground: float
    """Share of all voxels."""
    seconds: float
    stride: int
    """Sections between the two of a pair."""
    warnings: tuple[str, ...]


def contrast_looks_inverted(section: np.ndarray, pixel: float) -> bool:
    """Tell whether thin structures are bright on dark, where electron micrographs of stained tissue have them dark.

    Looks at the skewness of a difference of Gaussians (σ = 10 and 40 nm): membranes and cristae, dark and thin, give it
    a long negative tail. Measured: VNC III −0.31 to −0.25, Lucchi −0.21 to −0.12; inverted, the same with the other sign.

    Parameters
    ----------
    section : ndarray, shape (rows, columns)
    pixel : float
        Its size in nanometres.
    """
    values = section.astype(np.float32)
    thin = ndimage.gaussian_filter(values, 10 / pixel) - ndimage.gaussian_filter(values, 40 / pixel)
    thin -= thin.mean()
    deviation = float(thin.std())
    return deviation > 0 and float((thin**3).mean()) / deviation**3 > 0.05


def run_identity(info: WeightsInfo, network: PairNetwork, volume: Volume, settings: SegmentationSettings) -> str:
    """Fingerprint of all that decides the result, so that a run is resumed only as what it was."""
    weights = hashlib.sha256()
    for tensor in network.state_dict().values():
        weights.update(tensor.cpu().numpy().tobytes())
    decisive = {
        "volume": [volume.name, volume.shape, str(volume.dtype), volume.voxel_size],
        "weights": weights.hexdigest(),
        "info": [info.backbone, info.pixel, info.spacing],
        "inference": asdict(settings.inference),
        "threshold": settings.threshold,
        "mask_value": settings.mask_value,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def segment_volume(
    network: PairNetwork, info: WeightsInfo, volume: Volume, settings: SegmentationSettings, device: torch.device
) -> Iterator[SectionDone | Segmented]:
    """Predict a volume, write its mask (and probability map), and yield the progress; `Segmented` comes last.

    Files appear under their names only when complete. Interrupted, the run leaves what it has in `.partial` files and
    `settings.resume` goes on from them.

    Raises
    ------
    InputError, FileError
        If the volume, the output or what is to be resumed is not as it must be.
    """
    began = time.monotonic()
    check_outputs(settings)
    voxel_size = check_volume(volume)
    geometry = Geometry(info.pixel, info.spacing)
    job = _Job(network, info, volume, settings, geometry, device)
    yield from job.predict()
    foreground = job.foreground
    if settings.min_size:
        foreground = job.drop_small()
    share = foreground / float(np.prod(volume.shape))
    yield Segmented(
        sections=volume.shape[0],
        foreground=share,
        seconds=time.monotonic() - began,
        stride=geometry.stride(voxel_size, volume.shape[0]),
        warnings=tuple(_warnings(volume, share)),
    )


def check_outputs(settings: SegmentationSettings) -> None:
    """Refuse before any work what could not be written at its end."""
    for path in (settings.output, settings.probability):
        if path is None:
            continue
        if path.suffix.lower() not in (".tif", ".tiff"):
            raise InputError(f"{path} must end in .tif or .tiff; mitoda writes TIFF")
        if path.is_dir():
            raise FileError(f"{path} is a folder; give the name of a file")
        if path.exists() and not settings.overwrite:
            raise FileError(f"{path} exists; give another name, or --overwrite to replace it")
        if not path.parent.is_dir():
            raise FileError(f"the folder {path.parent} does not exist; make it first: mkdir -p {path.parent}")


def _warnings(volume: Volume, share: float) -> Iterator[str]:
    """What a person should know about the mask before trusting it."""
    if share == 0:
        yield (
            "the mask is empty: no pixel reached the threshold. Check the voxel size (--voxel-size) and the contrast "
            "(--invert), or adapt to this volume with 'mitoda adapt --target'"
        )
    elif share > 0.5:
        yield f"{share:.0%} of the volume is foreground, more than any tissue has; check --voxel-size and --invert"
    section = volume.read(volume.shape[0] // 2)
    if volume.voxel_size is not None and contrast_looks_inverted(section, volume.voxel_size[1]):
        yield "the contrast looks inverted (thin structures bright on dark); if membranes are bright, give --invert"


class _Job:
    """One segmentation: where its files are and how far it has come."""

    def __init__(
        self,
        network: PairNetwork,
        info: WeightsInfo,
        volume: Volume,
        settings: SegmentationSettings,
        geometry: Geometry,
        device: torch.device,
    ) -> None:
        self.network = network
        self.info = info
        self.volume = volume
        self.settings = settings
        self.geometry = geometry
        self.device = device
        self.identity = run_identity(info, network, volume, settings)
        self.components = StreamedComponents()
        self.foreground = 0
        # With small components to drop, the first pass goes to a file of its own; its name says what made it.
        output = settings.output
        self.first_pass = (
            output.with_name(f"{output.stem}.unfiltered-{self.identity}{output.suffix}")
            if settings.min_size
            else output
        )

    def _earlier(self) -> tuple[int, Iterator[tuple[np.ndarray, np.ndarray | None]]]:
        """Sections (mask, probability) that an interrupted run left behind: how many, and themselves in order."""
        if not self.settings.resume:
            return 0, iter(())
        shape, dtype = self.volume.shape, np.dtype(np.uint8)
        masks = read_partial(self.first_pass, self.identity, shape, dtype)
        if self.settings.probability is None:
            return masks.count, ((mask, None) for mask in masks)
        levels = read_partial(self.settings.probability, self.identity, shape, dtype)
        return min(masks.count, levels.count), zip(masks, levels, strict=False)

    def _computed(self, start: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Sections (mask, probability) from the network."""
        s = self.settings
        predicted = predict_sections(
            self.network,
            backbone_named(self.info.backbone),
            self.geometry,
            self.volume,
            s.inference,
            self.device,
            start,
        )
        for probability in predicted:
            mask = np.where(probability >= s.threshold, np.uint8(s.mask_value), np.uint8(0))
            levels = None
            if s.probability is not None:
                levels = np.rint(probability * PROBABILITY_LEVELS).astype(np.uint8)
            yield mask, levels

    def predict(self) -> Iterator[SectionDone]:
        """Write the mask before small components are dropped, and the probability map."""
        sections = self.volume.shape[0]
        resumed, earlier = self._earlier()
        with ExitStack() as stack:
            writers = [stack.enter_context(self._writer(self.first_pass))]
            if self.settings.probability is not None:
                writers.append(stack.enter_context(self._writer(self.settings.probability)))
            pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="mitoda-write"))
            waiting: list[Future[None]] = []
            for section, (mask, levels) in enumerate(chain(earlier, self._computed(resumed))):
                waiting.append(pool.submit(self._write, writers, mask, levels))
                if len(waiting) > 2:
                    waiting.pop(0).result()
                count = int(np.count_nonzero(mask))
                self.foreground += count
                yield SectionDone(section, sections, count / mask.size, section < resumed)
            for future in waiting:
                future.result()

    def _writer(self, path: Path) -> SectionWriter:
        return SectionWriter(
            path,
            self.volume.shape,
            np.dtype(np.uint8),
            self.volume.voxel_size,
            overwrite=self.settings.overwrite,
            identity=self.identity,
        )

    def _write(self, writers: list[SectionWriter], mask: np.ndarray, levels: np.ndarray | None) -> None:
        writers[0].write(mask)
        if levels is not None:
            writers[1].write(levels)
        if self.settings.min_size:
            self.components.add(mask)

    def drop_small(self) -> int:
        """Second pass: write the mask without small components; return the voxels left."""
        left = 0
        unfiltered = open_labels(self.first_pass)
        with self._writer(self.settings.output) as writer:
            for section in range(self.volume.shape[0]):
                mask = unfiltered.read(section) * np.uint8(self.settings.mask_value)
                kept = self.components.without_small(section, mask, self.settings.min_size)
                left += int(np.count_nonzero(kept))
                writer.write(kept)
        self.first_pass.unlink()
        return left
