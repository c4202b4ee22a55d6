"""Taking up what an interrupted run has written.

    mask.tif.partial            what was being written when the run died
    mask.tif.partial.previous   the same, moved aside; its sections are fed into a new mask.tif.partial
    mask.tif                    the result; when it appears, .previous is deleted

If the run dies again while feeding, both files are there. The one with more whole sections is kept.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import DTypeLike

from mitoda.errors import FileError, InputError
from mitoda.volumes.tiff import DAMAGE, quiet_tifffile
from mitoda.volumes.writer import partial_path, previous_path


@dataclass(frozen=True)
class PartialSections:
    """The whole sections of an interrupted stack, first to last; each iteration reads them anew."""

    path: Path
    """The file they are in; it need not exist if there are none."""
    count: int
    """How many there are."""

    def __iter__(self) -> Iterator[np.ndarray]:
        if not self.count:
            return
        done = 0
        for section in _whole_sections(self.path):
            yield section
            done += 1
            if done == self.count:
                return
        raise FileError(
            f"{self.path} had {self.count} whole sections and now has {done}; start again with --overwrite"
        )


def read_partial(path: str | Path, identity: str, shape: Sequence[int], dtype: DTypeLike) -> PartialSections:
    """Move the partial file of an interrupted run aside and return its whole sections.

    Call it before opening the `SectionWriter`, write these sections first, and go on after them. Reading
    stops at the first section that is cut off or damaged. A run that dies anywhere in between loses nothing.

    Parameters
    ----------
    path : path
        The final name, without .partial.
    identity : str
        As given to the `SectionWriter`.
    shape : (int, int, int)
        Of the whole stack.
    dtype : dtype

    Returns
    -------
    PartialSections
        With count 0 if nothing was left, or nothing whole.

    Raises
    ------
    InputError
        If what was left was made with another identity, shape or type. Then nothing is moved.
    FileError
        If the files cannot be read or moved.
    """
    partial, previous = partial_path(path), previous_path(path)
    stack = (int(shape[0]), int(shape[1]), int(shape[2])), np.dtype(dtype)
    try:
        counts = {file: _count(file, identity, *stack) for file in (partial, previous) if file.exists()}
        kept = max(counts, key=lambda file: counts[file], default=previous)
        if kept == partial:
            partial.replace(previous)
        else:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{partial} cannot be taken up: {error.strerror or error}") from error
    return PartialSections(previous, counts.get(kept, 0))


def _count(path: Path, identity: str, shape: tuple[int, int, int], dtype: np.dtype) -> int:
    """Count the whole sections of a file, or refuse it; a file cut off before its first page has none."""
    first = _first_page(path)
    if first is None:
        return 0
    found, stack, section_shape, section_dtype = first
    if found != identity:
        raise InputError(
            f"{path} was made with other settings or weights (run {found or 'without a name'}, now "
            f"{identity or 'without a name'}); "
            "use the same again, or give --overwrite to start again"
        )
    if (stack, *section_shape) != shape or section_dtype != dtype:
        raise InputError(
            f"{path} is for a stack of {(stack, *section_shape)} {section_dtype}, but this one is {shape} "
            f"{dtype}; give the same stack, or --overwrite to start again"
        )
    return sum(1 for _ in _whole_sections(path))


def _first_page(path: Path) -> tuple[str, int, tuple[int, ...], np.dtype] | None:
    """Return identity, number of sections, shape and type of a section, if the file got that far."""
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            slices = re.search(r"^slices=(\d+)$", page.description, re.MULTILINE)
            software = re.fullmatch(r"mitoda [^;]+(?:; run (.*))?", page.software)
            if slices is None or software is None or page.dtype is None:
                return None
            return software[1] or "", int(slices[1]), page.shape, page.dtype
    except DAMAGE:
        return None


def _whole_sections(path: Path) -> Iterator[np.ndarray]:
    """Yield sections up to the first that is not whole. zlib's checksum tells."""
    with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
        size = tiff.filehandle.size
        tiff.pages.useframes = False
        index = 0
        shape = None
        while True:
            try:
                page = tiff.pages[index]
                ends = [
                    offset + count
                    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
                ]
                if not ends or max(ends) > size or 0 in page.databytecounts:
                    return
                section = page.asarray(maxworkers=1)
            except DAMAGE:
                return
            if shape not in (None, section.shape):
                return
            shape = section.shape
            yield section
            index += 1
