"""Segment a volume: into masks section by section, or into files, in one pass or two, with resuming."""

import copy
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

import numpy as np

from mitoda.data.filled import FilledVolume
from mitoda.errors import FileError, InputError
from mitoda.inference.checks import mask_warnings, oblong_pixels
from mitoda.inference.events import AlreadyComplete, Event, Notice, Numbered, SectionDone, Segmented
from mitoda.inference.identity import fingerprint, run_identity
from mitoda.inference.settings import MaskSettings, Resolved, SegmentSettings, resolve
from mitoda.inference.streaming import predict
from mitoda.inference.voxel_size import search_voxel_size
from mitoda.models.model import Model
from mitoda.postprocessing.instances import instances
from mitoda.postprocessing.mask import MaskFinalizer, quantise
from mitoda.postprocessing.spool import Spool
from mitoda.volumes import SectionWriter, Volume, open_labels, open_values, read_partial, write_sections
from mitoda.volumes.files import output_kind, partial_path
from mitoda.volumes.lock import locked
from mitoda.volumes.partial import check_partial, previous_path, remove_previous, was_written_by
from mitoda.volumes.volume import Lengths, origin_of, stated_lengths
from mitoda.volumes.voxel_size import known_voxel_size

NO_MEMBRANES = (
    "no dark membrane stands out around the mitochondria found, so their boundaries were not moved "
    "(--no-snap turns snapping off)"
)


def segment(volume: Volume, model: Model, settings: SegmentSettings) -> Generator[Event, None, None]:
    """Segment a volume into files, and yield events; the last is `Segmented`, or `AlreadyComplete` before `Numbered`.

    Files appear under their names only when complete. An interrupted run leaves what it has in `.partial` files, and
    continues from them with `settings.resume`.

    Parameters
    ----------
    volume : Volume
        If its voxel size is unknown it is searched (`VoxelSizeFound`), and not written into the files.
    model : Model
    settings : SegmentSettings
        What is None is taken from the weights; `Resolved` has the values in use.

    Raises
    ------
    InputError, FileError
        If the volume, the files or the run to resume are not as they must be.

    Examples
    --------
    >>> from mitoda.models.model import load_model
    >>> from mitoda.volumes import open_volume
    >>> for event in segment(  # doctest: +SKIP
    ...     open_volume("stack.tif"), load_model("general"), SegmentSettings(output="mask.tif")
    ... ):
    ...     print(event)
    """
    settings.check_paths([Path(volume.name)])
    for path in settings.written if settings.resume else ():
        if output_kind(path) != "TIFF":
            raise InputError(
                f"{path} cannot be resumed: of what is written section by section, only TIFF can be continued; leave "
                "--resume out, or write .tif"
            )
    with ExitStack() as locks:
        for path in settings.written:
            locks.enter_context(locked(path))
        yield from _segment(volume, model, settings)


def _segment(volume: Volume, model: Model, settings: SegmentSettings) -> Generator[Event, None, None]:
    """Segment, with the outputs locked."""
    began = time.monotonic()
    calibration = stated_lengths(volume)
    if volume.voxel_size is None:
        found = search_voxel_size(volume, model)
        yield found
        volume = copy.copy(volume)
        volume.voxel_size = found.voxel_size
    voxel_size = known_voxel_size(volume)
    if warning := oblong_pixels(voxel_size):
        yield Notice(warning)
    resolved = resolve(settings, model.info, voxel_size)
    yield resolved
    filled = FilledVolume(volume)
    job = _Job(filled, model, settings, resolved, calibration)
    if job.is_complete:
        job.remove_leftovers()
        yield AlreadyComplete(Path(settings.output))
        yield from job.number()
        return
    job.check_leftovers()
    yield from job.predict()
    left = job.finalize() if resolved.two_passes else job.foreground
    job.remove_leftovers()
    yield from job.number()
    voxels = float(np.prod(volume.shape))
    yield Segmented(
        sections=volume.shape[0],
        foreground=left / voxels,
        seconds=time.monotonic() - began,
        stride=model.geometry.stride(voxel_size, volume.shape[0]),
        warnings=(
            *mask_warnings(filled, voxel_size, model.geometry, job.foreground / voxels, left / voxels),
            *((NO_MEMBRANES,) if job.foreground and job.finalizer.found_no_membranes else ()),
        ),
    )


def predict_masks(
    volume: Volume,
    model: Model,
    settings: MaskSettings = MaskSettings(),
    observe: Callable[[int, np.ndarray], None] = lambda section, probability: None,
) -> Iterator[np.ndarray]:
    """Yield the mask of each section that `segment` would write, bool, without files.

    The first mask comes once the whole volume is predicted; until then sections are kept in a temporary file.

    Parameters
    ----------
    observe : callable
        Is given the number of each section and its probabilities, float32, as they are predicted.
    """
    voxel_size = known_voxel_size(volume)
    filled = FilledVolume(volume)
    finalizer = make_finalizer(settings, resolve(settings, model.info, voxel_size), voxel_size)
    sections = Spool()
    for section, probability in enumerate(predict(filled, model, settings)):
        observe(section, probability)
        pending = filled.tissue.clear(section, finalizer.pending(probability))
        finalizer.add(pending, filled.read(section) if finalizer.needs_images else None)
        sections.append(pending)
    for section in range(len(sections)):
        (pending,) = sections.read(section)
        yield filled.tissue.clear(section, finalizer.finalize(section, pending))


def make_finalizer(
    settings: MaskSettings, resolved: Resolved, voxel_size: tuple[float, float, float]
) -> MaskFinalizer:
    """What turns the probabilities of a stack into its mask."""
    return MaskFinalizer(resolved.threshold, resolved.min_size, resolved.snap, voxel_size, settings.boundary)


class _Job:
    """One segmentation: where its files are and how far it has come."""

    def __init__(
        self,
        volume: FilledVolume,
        model: Model,
        settings: SegmentSettings,
        resolved: Resolved,
        calibration: Lengths,
    ) -> None:
        self.volume = volume
        self.model = model
        self.settings = settings
        self.two_passes = resolved.two_passes
        self.calibration = calibration
        """Voxel size written into the files, as far as it is stated."""
        self.identity = run_identity(volume.volume, model, settings, resolved)
        self.finalizer = make_finalizer(settings, resolved, known_voxel_size(volume))
        self.foreground = 0
        self._notices: list[str] = []
        self._write_failed = False
        self.output, *maps = settings.paths
        # The first of two passes writes a file of its own, whose name has the identity: the mask before small
        # components are removed or, where boundaries are moved, the probabilities.
        self.first_pass, self.final_identity = self.output, self.identity
        if self.two_passes:
            self.first_pass = self.output.with_name(f"{self.output.stem}.unfiltered-{self.identity}.tif")
            self.final_identity = fingerprint([self.identity, resolved.min_size])
        self.labels_identity = fingerprint([self.final_identity, settings.split, bool(maps)])
        self.files = [self.first_pass, *maps]
        """Files that the first pass writes."""

    @property
    def is_complete(self) -> bool:
        """Whether the run to resume has written all its files."""
        return self._is_done(self.output, self.final_identity) and all(map(self._is_done, self.files[1:]))

    def _is_done(self, path: Path, identity: str = "") -> bool:
        """Whether the run to resume has completed a file."""
        return self.settings.resume and path.exists() and was_written_by(path, identity or self.identity)

    def check_leftovers(self) -> None:
        """Refuse, before any work, files that would be in the way at the end."""
        for path in {*self.settings.written, *self.files}:
            check_partial(partial_path(path))
            check_partial(previous_path(path))
        if self.settings.overwrite:
            return
        for path in self.settings.paths:
            if path.exists() and not (path in self.files and self._is_done(path)):
                raise FileError(f"{path} exists; give another name, or --overwrite to replace it")
        labels = self.settings.instances
        if (
            labels is not None
            and Path(labels).exists()
            and not self._is_done(Path(labels), self.labels_identity)
        ):
            raise FileError(f"{labels} exists; give another name, or --overwrite to replace it")
        if not self.two_passes:
            return
        partial = partial_path(self.output)
        unfiltered = (self.first_pass, partial_path(self.first_pass), previous_path(self.first_pass))
        if self.settings.resume and partial.exists() and not any(path.exists() for path in unfiltered):
            raise FileError(
                f"{partial} is left from a run without --min-size and with --no-snap, or with other settings; "
                "resume it with the same settings, or give --overwrite to start again"
            )
        for path in () if self.settings.resume else (self.first_pass, partial):
            if path.exists():
                raise FileError(
                    f"{path} is left from an interrupted run; give --resume to continue it, or --overwrite to start "
                    "again"
                )

    def predict(self) -> Iterator[SectionDone | Notice]:
        """Write the first pass, and the probability map."""
        sections = self.volume.shape[0]
        earlier = [self._earlier(path) for path in self.files]
        resumed = min(count for count, _ in earlier)
        with ExitStack() as stack:
            writers = [
                None if self._is_done(path) else stack.enter_context(self._writer(path, self.identity))
                for path in self.files
            ]
            pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="mitoda-write"))
            waiting: list[Future[None]] = []
            stored = zip(*(content for _, content in earlier), strict=False)
            for section, arrays in enumerate(chain(stored, self._computed(resumed))):
                while self._notices:
                    yield Notice(self._notices.pop(0))
                waiting.append(pool.submit(self._write, writers, section, arrays))
                if len(waiting) > 2:
                    waiting.pop(0).result()
                mask = self.finalizer.provisional(arrays[0])
                count = int(np.count_nonzero(mask))
                self.foreground += count
                yield SectionDone(section, sections, count / mask.size, section < resumed)
            for future in waiting:
                future.result()

    def _earlier(self, path: Path) -> tuple[int, Iterable[np.ndarray]]:
        """Sections of a file that an interrupted run left: how many, and their content in order."""
        if not self.settings.resume:
            return 0, ()
        if self._is_done(path):
            done = open_values(path)
            return done.shape[0], (done.read(section) for section in range(done.shape[0]))
        partial = read_partial(path, self.identity, self.volume.shape, np.dtype(np.uint8))
        return partial.count, partial

    def _computed(self, start: int) -> Iterator[tuple[np.ndarray, ...]]:
        """The content of the files' sections from the network."""
        maps_of = predict(self.volume, self.model, self.settings, start, self._notices.append)
        for section, probability in enumerate(maps_of, start):
            maps = [quantise(probability)] if len(self.files) > 1 else []
            yield (self.volume.tissue.clear(section, self.finalizer.pending(probability)), *maps)

    def _writer(self, path: Path, identity: str) -> SectionWriter:
        return SectionWriter(
            path,
            self.volume.shape,
            np.dtype(np.uint8),
            self.calibration,
            overwrite=self.settings.overwrite,
            identity=identity,
            origin=origin_of(self.volume),
            zarr_version=self.settings.ome_zarr,
        )

    def _write(
        self, writers: list[SectionWriter | None], section: int, arrays: tuple[np.ndarray, ...]
    ) -> None:
        if self._write_failed:  # later sections in the queue must not take the place of the missing one
            return
        pending, *maps = arrays
        mask = np.where(pending > 0, np.uint8(self.settings.mask_value), np.uint8(0))
        try:
            for writer, array in zip(writers, (pending if self.two_passes else mask, *maps), strict=True):
                if writer is not None:
                    writer.write(array)
        except BaseException:
            self._write_failed = True
            raise
        self.finalizer.add(pending, self.volume.read(section) if self.finalizer.needs_images else None)

    def finalize(self) -> int:
        """Write the final mask from the first pass; return its voxels of foreground."""
        left = 0
        unfiltered = open_values(self.first_pass)
        if self.settings.resume:  # this pass takes seconds, so it starts again
            partial_path(self.output).unlink(missing_ok=True)
        with self._writer(self.output, self.final_identity) as writer, ThreadPoolExecutor(1) as pool:
            waiting: list[Future[None]] = []
            for section in range(self.volume.shape[0]):
                mask = self.finalizer.finalize(section, unfiltered.read(section))
                mask = self.volume.tissue.clear(section, mask)
                left += int(np.count_nonzero(mask))
                waiting.append(pool.submit(writer.write, mask * np.uint8(self.settings.mask_value)))
                if len(waiting) > 2:
                    waiting.pop(0).result()
            for future in waiting:
                future.result()
        return left

    def number(self) -> Iterator[Numbered]:
        """Write the labels, where wanted, from the mask that is written, and the probability map if there is one."""
        if self.settings.instances is None:
            return
        output = Path(self.settings.instances)
        if self._is_done(output, self.labels_identity):
            return
        if self.settings.resume:
            partial_path(output).unlink(missing_ok=True)
        found = instances(
            open_labels(self.output),
            probability=self.settings.probability,
            split=self.settings.split,
            voxel_size=known_voxel_size(self.volume),
        )
        write_sections(
            output,
            found,
            found.shape,
            found.dtype,
            self.calibration,
            overwrite=self.settings.overwrite,
            identity=self.labels_identity,
            origin=origin_of(self.volume),
            zarr_version=self.settings.ome_zarr,
        )
        yield Numbered(output, found.count, found.components)

    def remove_leftovers(self) -> None:
        """Remove what only an unfinished run needs."""
        if self.two_passes:
            self.first_pass.unlink(missing_ok=True)
        for path in {self.output, *self.files}:
            remove_previous(path)
