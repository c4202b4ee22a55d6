"""Segment a volume into files: threshold, small components, writing behind the computation, resuming."""

import hashlib
import json
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from mitoda.data.geometry import Geometry
from mitoda.errors import FileError
from mitoda.inference.checks import mask_warnings
from mitoda.inference.segment_settings import SegmentationSettings, check_outputs
from mitoda.inference.streaming import check_volume, predict_sections
from mitoda.models.backbones import backbone_named
from mitoda.models.pair_networks import PairNetwork
from mitoda.models.weights import WeightsInfo
from mitoda.postprocessing.mask import MaskFinalizer, quantise
from mitoda.volumes import SectionWriter, Volume, open_volume, read_partial
from mitoda.volumes.files import partial_path
from mitoda.volumes.writer import previous_path

NO_RING = (
    "no dark membrane stands out around what was found, so boundaries were left where the network puts them "
    "(--no-snap does so without looking)"
)


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
class Notice:
    """Something had to be changed on the way; the person should know."""

    text: str


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


def run_identity(
    info: WeightsInfo, network: PairNetwork, volume: Volume, settings: SegmentationSettings
) -> str:
    """Fingerprint of all that decides the result, so that a run is resumed only as what it was.

    The first and the last section stand for the volume: they tell a changed file, other axes and inverted contrast.
    """
    content = hashlib.sha256()
    for section in sorted({0, volume.shape[0] - 1}):
        content.update(np.ascontiguousarray(volume.read(section)).tobytes())
    weights = hashlib.sha256()
    for tensor in network.state_dict().values():
        weights.update(tensor.cpu().numpy().tobytes())
    decisive = {
        "volume": [content.hexdigest(), volume.shape, str(volume.dtype), volume.voxel_size],
        "weights": weights.hexdigest(),
        "info": [info.backbone, info.pixel, info.spacing],
        "inference": asdict(replace(settings.inference, batch_size=None, compiled=False)),  # speed only
        "threshold": settings.threshold,
        "mask_value": settings.mask_value,
        "boundary": settings.boundary,
        "snap": settings.snap,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def segment_volume(
    network: PairNetwork,
    info: WeightsInfo,
    volume: Volume,
    settings: SegmentationSettings,
    device: torch.device,
) -> Generator[SectionDone | Notice | Segmented, None, None]:
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
    job.check_left_over()
    yield from job.take_first_pass() if job.first_pass_is_done else job.predict()
    left = job.second_pass() if settings.two_passes else job.foreground
    voxels = float(np.prod(volume.shape))
    yield Segmented(
        sections=volume.shape[0],
        foreground=left / voxels,
        seconds=time.monotonic() - began,
        stride=geometry.stride(voxel_size, volume.shape[0]),
        warnings=(
            *mask_warnings(volume, voxel_size, geometry, job.foreground / voxels, left / voxels),
            *((NO_RING,) if job.foreground and job.finishing.found_no_membranes else ()),
        ),
    )


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
        self.finishing = MaskFinalizer(
            settings.threshold, settings.min_size, settings.snap, check_volume(volume), settings.boundary
        )
        self.foreground = 0
        self.notices: list[str] = []
        self._write_failed = False
        # The first of two passes goes to a file of its own, whose name says what made it: the mask before small
        # components are dropped or, where rings are sought, the probabilities.
        output = settings.output
        self.first_pass = (
            output.with_name(f"{output.stem}.unfiltered-{self.identity}{output.suffix}")
            if settings.two_passes
            else output
        )

    @property
    def first_pass_is_done(self) -> bool:
        """Whether an interrupted run got as far as dropping small components."""
        wanted = [self.first_pass, self.settings.probability]
        return (
            self.settings.resume
            and self.settings.two_passes
            and all(path.exists() for path in wanted if path is not None)
        )

    def check_left_over(self) -> None:
        """Refuse, before any work, files of an interrupted run that would be in the way at its end."""
        if not self.settings.two_passes or self.settings.overwrite:
            return
        partial = partial_path(self.settings.output)
        if self.settings.resume:
            unfiltered = (self.first_pass, partial_path(self.first_pass), previous_path(self.first_pass))
            if partial.exists() and not any(path.exists() for path in unfiltered):
                raise FileError(
                    f"{partial} is left from a run without --min-size and with --no-snap, or with other settings; "
                    "resume it as it was, or give --overwrite to start again"
                )
            return
        for path in (self.first_pass, partial):
            if path.exists():
                raise FileError(
                    f"{path} is left from an interrupted run; give --resume to go on with it, or --overwrite to start "
                    "again"
                )

    def take_first_pass(self) -> Iterator[SectionDone]:
        """Go on after a first pass that is done: count its components again."""
        unfiltered = open_volume(self.first_pass)
        if unfiltered.shape != self.volume.shape:
            raise FileError(
                f"{self.first_pass} is not what it was; delete it and start again with --overwrite"
            )
        for section in range(self.volume.shape[0]):
            first = unfiltered.read(section)
            self._look_at(section, first)
            mask = self.finishing.provisional(first)
            count = int(np.count_nonzero(mask))
            self.foreground += count
            yield SectionDone(section, self.volume.shape[0], count / mask.size, resumed=True)

    def _earlier(self) -> tuple[int, Iterator[tuple[np.ndarray, np.ndarray | None]]]:
        """Sections (first pass, probability) that an interrupted run left: how many, and themselves in order."""
        if not self.settings.resume:
            return 0, iter(())
        shape, dtype = self.volume.shape, np.dtype(np.uint8)
        masks = read_partial(self.first_pass, self.identity, shape, dtype)
        if self.settings.probability is None:
            return masks.count, ((mask, None) for mask in masks)
        levels = read_partial(self.settings.probability, self.identity, shape, dtype)
        return min(masks.count, levels.count), zip(masks, levels, strict=False)

    def _computed(self, start: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Sections (first pass, probability) from the network."""
        s = self.settings
        predicted = predict_sections(
            self.network,
            backbone_named(self.info.backbone),
            self.geometry,
            self.volume,
            s.inference,
            self.device,
            start,
            self.notices.append,
        )
        for probability in predicted:
            yield (
                self.finishing.pending(probability),
                quantise(probability) if s.probability is not None else None,
            )

    def _look_at(self, section: int, first: np.ndarray) -> None:
        """Learn from a section of the first pass what the second will need."""
        self.finishing.add(first, self.volume.read(section) if self.finishing.needs_images else None)

    def predict(self) -> Iterator[SectionDone | Notice]:
        """Write the first pass, and the probability map."""
        sections = self.volume.shape[0]
        resumed, earlier = self._earlier()
        with ExitStack() as stack:
            writers = [stack.enter_context(self._writer(self.first_pass))]
            if self.settings.probability is not None:
                writers.append(stack.enter_context(self._writer(self.settings.probability)))
            pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="mitoda-write"))
            waiting: list[Future[None]] = []
            for section, (first, levels) in enumerate(chain(earlier, self._computed(resumed))):
                while self.notices:
                    yield Notice(self.notices.pop(0))
                waiting.append(pool.submit(self._write, writers, section, first, levels))
                if len(waiting) > 2:
                    waiting.pop(0).result()
                mask = self.finishing.provisional(first)
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

    def _write(
        self, writers: list[SectionWriter], section: int, first: np.ndarray, levels: np.ndarray | None
    ) -> None:
        if (
            self._write_failed
        ):  # later sections in the queue must not take the place of the one that is missing
            return
        try:
            last = np.where(first > 0, np.uint8(self.settings.mask_value), np.uint8(0))
            writers[0].write(first if self.settings.two_passes else last)
            if levels is not None:
                writers[1].write(levels)
        except BaseException:
            self._write_failed = True
            raise
        self._look_at(section, first)

    def second_pass(self) -> int:
        """Write the mask with boundaries on their rings and without small components; return the voxels left."""
        left = 0
        unfiltered = open_volume(self.first_pass)
        if self.settings.resume:  # a second pass takes seconds, so it begins anew
            partial_path(self.settings.output).unlink(missing_ok=True)
        with self._writer(self.settings.output) as writer, ThreadPoolExecutor(1) as pool:
            waiting: list[Future[None]] = []
            for section in range(self.volume.shape[0]):
                kept = self.finishing.finalize(section, unfiltered.read(section))
                left += int(np.count_nonzero(kept))
                waiting.append(pool.submit(writer.write, kept * np.uint8(self.settings.mask_value)))
                if len(waiting) > 2:
                    waiting.pop(0).result()
            for future in waiting:
                future.result()
        self.first_pass.unlink()
        return left
