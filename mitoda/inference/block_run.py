"""A segmentation in blocks: prepare, predict, join, finish, and give the files their names."""

import copy
import math
import secrets
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from mitoda.errors import FileError
from mitoda.inference.block_plan import describe, middle_window
from mitoda.inference.blocks import BlockRecord, BlockWork
from mitoda.inference.checks import oblong_pixels, result_warnings
from mitoda.inference.cluster import Runner, cluster_runner, run_here
from mitoda.inference.events import AlreadyComplete, BlockDone, Event, Notice, Numbered, PartDone, Segmented
from mitoda.inference.segment import NO_MEMBRANES
from mitoda.inference.settings import BlockSettings, SegmentSettings
from mitoda.inference.voxel_size import search_voxel_size
from mitoda.models.model import Model
from mitoda.postprocessing.block_summary import joined_parts, load_curves, save_array, save_curves
from mitoda.postprocessing.instances import instances
from mitoda.postprocessing.joining import join_blocks
from mitoda.postprocessing.membrane_snapping import join_curves
from mitoda.volumes import Volume, open_labels, write_sections
from mitoda.volumes.lock import locked
from mitoda.volumes.records import read_record, write_record
from mitoda.volumes.volume import stated_lengths
from mitoda.volumes.writer import move_into_place

RECORD = "record.json"


def blocks_folder(output: Path) -> Path:
    """The folder of an unfinished run."""
    return output.with_name(f"{output.name}.blocks")


def segment_blocks(
    open_stack: Callable[[], Volume],
    model: Model,
    settings: SegmentSettings,
    blocks: BlockSettings = BlockSettings(),
    device: str = "auto",
) -> Generator[Event, None, None]:
    """Segment a volume of any size into OME-Zarr, block by block; yield events, the last is `Segmented`.

    What is done stays in a folder beside the output, and is continued with `settings.resume`.

    Parameters
    ----------
    open_stack : callable
        Opens the volume; called once in each process.
    model : Model
    settings : SegmentSettings
    blocks : BlockSettings
        Where blocks are computed, and how large they are. With a part, the last event is `PartDone`.
    device : str
        On which each process computes; see `choose_device`.

    Raises
    ------
    InputError, FileError
        If the volume, the files or the run to resume are not as they must be.
    """
    began = time.monotonic()
    output = Path(settings.output)
    with ExitStack() as stack:
        if blocks.part is None:
            stack.enter_context(locked(output))
        work = yield from _prepare(open_stack, model, settings, blocks, device)
        if _is_complete(work):
            yield AlreadyComplete(output)
            return
        everything = range(len(work.record.grid))
        part, parts = blocks.part or (1, 1)
        count = 0
        run = run_here(work)
        if blocks.workers is not None or blocks.scheduler is not None:
            run = stack.enter_context(cluster_runner(work, blocks.workers, blocks.scheduler))
        yield from _step(work, run, "predict", everything[part - 1 :: parts])
        if blocks.part is not None:
            missing = sum(not work.is_done("predict", index) for index in everything)
            yield PartDone(part, parts, missing)
            return
        if work.is_joined:
            count = join(work)
            yield from _step(work, run, "finish", everything)
        voxels = math.prod(work.record.shape)
        found, left = (
            sum(int(work.read(step, index, "foreground")) for index in everything) / voxels
            for step in ("predict", "finish" if work.is_joined else "predict")
        )
        warnings = (
            *result_warnings(
                middle_window(open_stack()), work.record.voxel_size, model.geometry, found, left
            ),
            *((NO_MEMBRANES,) if found and _found_no_membranes(work) else ()),
        )
        named = _complete(work)
        if settings.instances is not None:
            labels = Path(settings.instances)
            yield Numbered(labels, count, count) if work.numbers_blocks else _number(work)
        publish(work, named)
        yield Segmented(
            sections=work.record.shape[0],
            foreground=left,
            seconds=time.monotonic() - began,
            stride=model.geometry.stride(work.record.voxel_size, work.record.shape[0]),
            warnings=warnings,
        )


def _is_complete(work: BlockWork) -> bool:
    """Whether this run has given all files their names before; its folder goes last."""
    if work.folder.exists() or not all(path.exists() for path in work.settings.written):
        return False
    metadata = [Path(work.settings.output) / name for name in ("zarr.json", ".zattrs")]
    return any(path.exists() and work.record.identity in path.read_text("utf-8") for path in metadata)


def _prepare(
    open_stack: Callable[[], Volume],
    model: Model,
    settings: SegmentSettings,
    blocks: BlockSettings,
    device: str,
) -> Generator[Event, None, BlockWork]:
    """Find what all blocks share, or read it from the run to continue; make the folder and its arrays."""
    folder = blocks_folder(Path(settings.output))
    is_continued = settings.resume or blocks.part is not None
    if folder.exists() and settings.overwrite and not is_continued:
        remove_folder(folder)
    elif folder.exists() and not is_continued:
        raise FileError(
            f"{folder} is left from an interrupted run; give --resume to continue it, or --overwrite to start again"
        )
    volume = open_stack()
    stated = stated_lengths(volume)
    if volume.voxel_size is None:
        volume = copy.copy(volume)
        if folder.exists():
            volume.voxel_size = read_record(folder / RECORD, BlockRecord).voxel_size
        else:
            found = search_voxel_size(middle_window(volume), model)
            yield found
            volume.voxel_size = found.voxel_size
    record = describe(volume, model, settings, blocks, stated)
    if warning := oblong_pixels(record.voxel_size):
        yield Notice(warning)
    yield record.resolved
    work = BlockWork(open_stack, model.to("cpu"), device, settings, record, folder)
    if not folder.exists():
        if settings.resume and _is_complete(work):
            return work
        for path in settings.written:
            if path.exists() and not settings.overwrite:
                raise FileError(f"{path} exists; give another name, or --overwrite to replace it")
        _create(work)
    if read_record(folder / RECORD, BlockRecord) != record:
        raise FileError(
            f"{folder} is left from a run with another stack, weights or settings; continue it with the same ones, or "
            "remove it to start again"
        )
    return work


def _create(work: BlockWork) -> None:
    """Make the folder with its record and arrays at once: of several processes that start together, the first does."""
    draft = work.folder.with_name(f"{work.folder.name}.{secrets.token_hex(4)}.partial")
    try:
        draft.mkdir()
        names = ["mask.zarr", *(["predicted.zarr"] if work.is_joined else [])]
        names += ["probability.zarr"] if work.settings.probability is not None else []
        for name in names:
            work.image(name, np.dtype(np.uint8), draft, exists=False)
        write_record(draft / RECORD, work.record)
        with suppress(FileExistsError):
            draft.rename(work.folder)
    except OSError as error:
        if not work.folder.exists():
            raise FileError(f"{draft} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove the folder of an unfinished run; FileError if it is none."""
    if not (folder / RECORD).is_file():
        raise FileError(f"{folder} was not made by mitoda; move it away")
    shutil.rmtree(folder)


def _step(work: BlockWork, run: Runner, step: str, wanted: range) -> Iterator[BlockDone]:
    """Do a step of the blocks wanted that are not done."""
    missing = [index for index in wanted if not work.is_done(step, index)]
    resumed = done = len(wanted) - len(missing)
    for _ in run(step, missing):
        done += 1
        yield BlockDone(step, done, len(wanted), resumed)


def join(work: BlockWork) -> int:
    """Join the components of all blocks, and keep what `BlockWork.finish` needs; return how many there will be."""
    record, path = work.record, work.folder / "numbers.npy"
    if path.exists():
        return int(np.load(path, mmap_mode="r").max(initial=0))
    limit = work.finalizer.limit
    joined = join_blocks(work.predicted, record.grid.counts)
    large = joined.is_large(limit, record.shape[0])
    count = int(np.count_nonzero(large))
    if work.numbers_blocks and not (work.folder / "labels.zarr").exists():
        kind = np.dtype(np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32)
        work.image("labels.zarr", kind, work.folder, exists=False)
    if record.resolved.snap:  # small components count for the curves, and go with what surrounds them
        save_curves(work.folder, join_curves(joined_parts(work.predicted, joined), large, limit))
    save_array(work.folder / "offsets.npy", joined.offsets)
    save_array(path, joined.numbers if record.resolved.snap else joined.renumbered(large))
    return count


def _found_no_membranes(work: BlockWork) -> bool:
    """Whether boundaries were to be moved to membranes, and none stands out in the joined curves."""
    return work.record.resolved.snap and load_curves(work.folder, np.zeros(0, int)).overall is None


def _complete(work: BlockWork) -> dict[str, Path]:
    """Complete the images of the run that have no name yet; return their names, the mask's last."""
    named = {"probability.zarr": work.settings.probability, "mask.zarr": work.settings.output}
    if work.numbers_blocks:
        named = {"labels.zarr": work.settings.instances, **named}
    left = {
        name: Path(path) for name, path in named.items() if path is not None and (work.folder / name).exists()
    }
    for name in left:
        work.image(name, work.array(name).dtype, work.folder).complete()
    return left


def publish(work: BlockWork, named: dict[str, Path]) -> None:
    """Give the complete images their names, and remove the folder of the run."""
    for name, target in named.items():
        if target.exists() and not work.settings.overwrite:
            raise FileError(
                f"{target} was created meanwhile; the result stays in {work.folder / name}, so rename one of them"
            )
        move_into_place(work.folder / name, target)
    shutil.rmtree(work.folder)


def _number(work: BlockWork) -> Numbered:
    """Number the mitochondria of the complete mask section by section, as `segment` does."""
    settings = work.settings
    output = Path(str(settings.instances))
    found = instances(
        open_labels(work.folder / "mask.zarr"),
        probability=None if settings.probability is None else work.folder / "probability.zarr",
        split=settings.split,
        voxel_size=work.record.voxel_size,
    )
    write_sections(
        output,
        found,
        found.shape,
        found.dtype,
        work.record.stated,
        overwrite=settings.overwrite or settings.resume,
        origin=work.record.origin,
        zarr_version=settings.ome_zarr,
    )
    return Numbered(output, found.count, found.components)
