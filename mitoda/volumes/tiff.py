"""TIFF files: plain, BigTIFF, ImageJ, OME; any compression of imagecodecs; strips or tiles.

The file is parsed once. Reading opens it anew each time and reads only what the region needs: the rows of an
uncompressed section, the strips or tiles of a compressed one. So no file stays open, nothing is shared
between threads or forked processes, and memory is bounded by one section.
"""

import logging
import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import numpy as np
import tifffile

from mitoda.errors import FileError, InputError, MitodaError
from mitoda.volumes import voxel_size as calibration
from mitoda.volumes.axes import lay_out
from mitoda.volumes.signatures import check_signature
from mitoda.volumes.volume import EVERYTHING, VoxelSize

DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    EOFError,
    struct.error,
)
"""What tifffile and imagecodecs raise on broken files; codec errors are RuntimeErrors, tifffile's are
ValueErrors."""

Page = tifffile.TiffPage | tifffile.TiffFrame

JPEG_COMPRESSIONS = (6, 7)
WHITE_IS_ZERO = 0
"""Value of the PhotometricInterpretation tag."""


class TiffVolume:
    """A stack in one TIFF file, in the axis order in which it is stored.

    1-bit images read as 0 and 255, whatever the file calls white: such files are masks, and what writes them
    disagrees about white. Colour maps are ignored, as in Fiji, where they only change the display.

    Parameters
    ----------
    path : Path
    axes : str, optional
        Overrules the axes of the file; see `mitoda.volumes.axes.lay_out`.

    Attributes
    ----------
    letters : str
        What the stored axes are: a permutation of ZYX.
    dtype : numpy.dtype
        Any, in native byte order; `open_volume` refuses some.
    white_is_zero : bool
        Whether the file says that large values are dark.
    lossy : bool
        Whether it is JPEG-compressed.

    Raises
    ------
    FileError
        If the file is missing, not a TIFF, damaged, truncated or laid out in a way that cannot be read
        lazily.
    InputError
        If it has channels, colours, time points or several stacks.
    """

    def __init__(self, path: Path, axes: str | None = None) -> None:
        check_signature(path, "TIFF")
        self.path = path
        self.name = str(path)
        try:
            with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
                self._parse(tiff, axes)
        except MitodaError:
            raise
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
        except DAMAGE as error:
            raise FileError(f"{path} is damaged: {error}; copy or export it again") from error

    def _parse(self, tiff: tifffile.TiffFile, axes: str | None) -> None:
        series = _only_series(tiff, self.name)
        page = series.keyframe
        self.shape, self.letters = lay_out(self.name, series.shape, series.axes, axes)
        if page.size != self.shape[1] * self.shape[2]:
            raise FileError(
                f"{self.name} stores {page.size} values a page, but its sections have "
                f"{self.shape[1]} × {self.shape[2]}; save it as a plain stack with one page a section"
            )
        sections = series.size // page.size
        announced = _announced_sections(series, page)
        if announced > sections or _chain_is_broken(tiff):
            raise _truncated(self.name, sections, announced)
        self._stored_dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
        self.is_bilevel = series.dtype == bool
        self.dtype = np.dtype(np.uint8) if self.is_bilevel else self._stored_dtype.newbyteorder("=")
        self.white_is_zero = page.photometric == WHITE_IS_ZERO and not self.is_bilevel
        self.lossy = page.compression in JPEG_COMPRESSIONS
        self.voxel_size = _voxel_size(tiff, series)
        self._keyframe = page
        self._size = tiff.filehandle.size
        self._locate_sections(tiff, series)

    def _locate_sections(self, tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
        """Note where each section's data lie: `_offsets` if each is contiguous and plain, else `_pages`."""
        count = self.shape[0]
        section_bytes = self.shape[1] * self.shape[2] * self._stored_dtype.itemsize
        self._offsets: list[int] = []
        self._pages: list[Page] = []
        start = series.dataoffset
        if start is not None and not self.is_bilevel:
            self._offsets = [start + index * section_bytes for index in range(count)]
        else:
            pages = [page for page in series.pages if page is not None and page.parent is tiff]
            if len(pages) < len(series.pages):
                raise FileError(f"{self.name} refers to sections in other files; save the stack as one file")
            self._check_pages(pages)
            if all(_is_plain(page, self._keyframe) for page in pages):
                self._offsets = [page.dataoffsets[0] for page in pages]
            else:
                self._pages = pages
        if self._offsets:
            ends = [offset + section_bytes for offset in self._offsets]
        else:
            ends = [
                max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))) for page in self._pages
            ]
        for index, end in enumerate(ends):
            if end > self._size:
                raise FileError(
                    f"{self.name} is truncated: section {index} of {count} ends at byte {end}, but the file "
                    f"ends at {self._size}; copy or download it again"
                )

    def _check_pages(self, pages: list[Page]) -> None:
        if len(pages) != self.shape[0]:
            raise _truncated(self.name, len(pages), self.shape[0])
        segments = math.prod(self._keyframe.chunked)
        for index, page in enumerate(pages):
            counts = page.databytecounts
            if (
                len(page.dataoffsets) != segments
                or len(counts) != segments
                or 0 in counts
                or 0 in page.dataoffsets
            ):
                raise FileError(
                    f"{self.name} is incomplete: section {index} has no data; copy or export it again"
                )

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section, writable; see `Volume.read`.

        Raises
        ------
        FileError
            If the section is damaged, with its number.
        """
        if not 0 <= section < self.shape[0]:
            raise IndexError(
                f"{self.name} has sections 0 to {self.shape[0] - 1}; section {section} was asked for"
            )
        first, last, row_rest = _span(rows, self.shape[1])
        left, right, column_rest = _span(columns, self.shape[2])
        try:
            with self.path.open("rb", buffering=0) as file:
                if self._offsets:
                    region = self._read_rows(file, self._offsets[section], first, last)[:, left:right]
                else:
                    region = self._read_segments(file, self._pages[section], (first, last, left, right))
        except OSError as error:
            raise FileError(
                f"section {section} of {self.name} cannot be read: {error.strerror or error}"
            ) from error
        except DAMAGE as error:
            raise FileError(
                f"section {section} of {self.name} is damaged: {error}; copy or export the file again"
            ) from error
        region = region[row_rest, column_rest]
        if self.is_bilevel:
            return np.where(region, np.uint8(255), np.uint8(0))
        return region.astype(self.dtype, copy=False)

    def _read_rows(self, file: FileIO, offset: int, first: int, last: int) -> np.ndarray:
        row_bytes = self.shape[2] * self._stored_dtype.itemsize
        data = _read_bytes(file, offset + first * row_bytes, (last - first) * row_bytes)
        return np.frombuffer(data, self._stored_dtype).reshape(last - first, self.shape[2])

    def _read_segments(self, file: FileIO, page: Page, box: tuple[int, int, int, int]) -> np.ndarray:
        """Decode the strips or tiles that overlap the box: rows [first, last), columns [left, right)."""
        first, last, left, right = box
        keyframe = self._keyframe
        _, rows, columns = self.shape
        height = keyframe.tilelength if keyframe.is_tiled else min(keyframe.rowsperstrip, rows)
        width = keyframe.tilewidth if keyframe.is_tiled else columns
        across = math.ceil(columns / width)
        region = np.empty((last - first, right - left), bool if self.is_bilevel else self.dtype)
        tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader} if self.lossy else {}
        for top in range(first // height * height, last, height):
            for start in range(left // width * width, right, width):
                index = top // height * across + start // width
                data = _read_bytes(file, page.dataoffsets[index], page.databytecounts[index])
                segment, *_ = keyframe.decode(bytes(data), index, **tables)
                if segment is None:
                    raise EOFError(f"segment {index} is empty")
                low, high = max(first, top), min(last, top + height)
                near, far = max(left, start), min(right, start + width)
                part = segment[0, low - top : high - top, near - start : far - start, 0]
                region[low - first : high - first, near - left : far - left] = part
        return region


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Keep tifffile's log of this thread off standard error: what matters in it becomes an error here."""
    thread = threading.get_ident()
    logger = logging.getLogger("tifffile")

    def is_of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(is_of_another_thread)
    try:
        yield
    finally:
        logger.removeFilter(is_of_another_thread)


def _only_series(tiff: tifffile.TiffFile, name: str) -> tifffile.TiffPageSeries:
    """Return the one stack of a file, thumbnails and reduced copies aside."""
    found = [series for series in tiff.series if not series.keyframe.is_reduced] or list(tiff.series)
    if not found:
        raise FileError(f"{name} holds no image; export it again")
    if len(found) > 1:
        shapes = ", ".join(f"{' × '.join(map(str, series.shape))} {series.dtype}" for series in found[:4])
        raise InputError(
            f"{name} holds {len(found)} image series ({shapes}{', …' if len(found) > 4 else ''}), not one "
            "stack; save the one to be read as its own file"
        )
    return found[0]


def _voxel_size(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> VoxelSize | None:
    tags = series.keyframe.tags
    if tiff.ome_metadata and series.kind == "ome":
        return calibration.from_ome(tiff.ome_metadata, tiff.series.index(series))
    if tiff.imagej_metadata and "XResolution" in tags and "YResolution" in tags:
        return calibration.from_imagej(
            tiff.imagej_metadata, tags["XResolution"].value, tags["YResolution"].value
        )
    return None


def _announced_sections(series: tifffile.TiffPageSeries, page: tifffile.TiffPage) -> int:
    """Return how many sections the description promises where tifffile did not find them, else 0."""
    if page.is_imagej and series.kind != "imagej":
        lines = tifffile.tifffile.imagej_description_metadata(page.imagej_description or "")
        return max(int(lines.get(key, 0)) for key in ("images", "slices", "frames"))
    if page.is_shaped and series.kind != "shaped":
        shape = tifffile.tifffile.shaped_description_metadata(page.shaped_description or "")["shape"]
        return math.prod(shape) // page.size
    return 0


def _truncated(name: str, found: int, announced: int) -> FileError:
    promised = f"announces {announced} sections" if announced > found else "refers to more sections"
    return FileError(
        f"{name} is truncated: it {promised}, but only {found} could be found; copy or download it again"
    )


def _chain_is_broken(tiff: tifffile.TiffFile) -> bool:
    """Whether the last page points to a next one that is not in the file."""
    position = tiff.pages.next_page_offset
    if position is None:
        return True
    tiff.filehandle.seek(position)
    pointer = tiff.filehandle.read(tiff.tiff.offsetsize)
    return len(pointer) < tiff.tiff.offsetsize or any(pointer)


def _is_plain(page: Page, keyframe: tifffile.TiffPage) -> bool:
    """Whether a page is one run of bytes in the file, neither compressed nor predicted nor packed."""
    if not keyframe.is_final or keyframe.dtype == bool:
        return False
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    return ends[:-1] == list(page.dataoffsets[1:])


def _span(wanted: slice, length: int) -> tuple[int, int, slice]:
    """Split a slice into the run that covers it, [first, last), and what is left to do within the run."""
    first, last, step = wanted.indices(length)
    if step < 0:
        return 0, length, wanted
    return first, max(first, last), slice(None, None, step)


def _read_bytes(file: FileIO, offset: int, count: int) -> bytearray:
    data = bytearray(count)
    file.seek(offset)
    view = memoryview(data)
    done = 0
    while done < count:
        got = file.readinto(view[done:])
        if not got:
            raise EOFError(f"the file ends at byte {offset + done}, {count - done} bytes early")
        done += got
    return data
