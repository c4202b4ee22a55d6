"""TIFF files: plain, BigTIFF, ImageJ, OME; any compression of imagecodecs; strips or tiles.

The file is parsed once. Each read opens it again and reads only the rows of an uncompressed section, or decodes only
the strips or tiles of a compressed one, that the region needs (a 64 × 64 region of a Lucchi section in a quarter of
the time that tifffile's `asarray` takes for the page). No file stays open and nothing is shared between threads or
forked processes.
"""

import logging
import math
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile

from mitoda.errors import FileError, InputError
from mitoda.volumes import voxel_size as calibration
from mitoda.volumes.axes import lay_out
from mitoda.volumes.files import check_claim, check_signature, naming_damage
from mitoda.volumes.volume import EVERYTHING, Lengths, check_section, span

Page = tifffile.TiffPage | tifffile.TiffFrame
Region = tuple[int, int, int, int]
"""Rows [first, last), columns [left, right): first, last, left, right."""

JPEG_COMPRESSIONS = (6, 7)
WHITE_IS_ZERO = 0
"""Value of the PhotometricInterpretation tag."""

LARGEST_EXPANSION = 2000
"""Times the file's size that a section of over 1 GiB may have; zlib reaches 1032."""


class TiffVolume:
    """A stack in one TIFF file, in the axis order in which it is stored.

    1-bit images are read as 0 and 255 whatever the photometric, because their writers disagree about white. Colour
    maps are ignored, as in Fiji, where they only change the display. RGB is accepted if its channels are equal. Planes
    of colour samples that tifffile wrote are read as sections: it stores arrays of 3 or 4 sections so by default.

    Parameters
    ----------
    path : Path
    axes : str, optional
        Replaces the axes of the file; see `mitoda.volumes.axes.lay_out`.
    alone : bool
        Read the pages of this file only, also where its OME metadata name further files of the stack.

    Attributes
    ----------
    letters : str
        The stored axes: a permutation of ZYX.
    dtype : numpy.dtype
        Any, in native byte order.
    white_is_zero : bool
        Whether the photometric says that large values are dark.
    lossy : bool
        Whether it is JPEG-compressed.

    Raises
    ------
    FileError
        If the file is missing, not a TIFF, damaged, truncated, or its sections cannot be read one by one.
    InputError
        If it has channels, colours, time points or several stacks.
    """

    def __init__(self, path: Path, axes: str | None = None, *, alone: bool = False) -> None:
        check_signature(path, "TIFF")
        self.path = path
        self.name = str(path)
        is_ome = False if alone else None
        with naming_damage(self.name), quiet_tifffile(), tifffile.TiffFile(path, is_ome=is_ome) as tiff:
            self._parse(tiff, axes)

    def _parse(self, tiff: tifffile.TiffFile, axes: str | None) -> None:
        size = self.file_size = tiff.filehandle.size
        announced = _announced_pages(tiff.pages.first)
        if announced > size:  # before tifffile makes a list of them
            raise _truncated(self.name, len(tiff.pages), announced)
        series = _only_series(tiff, self.name)
        self._keyframe = page = series.keyframe
        shape, stored_axes = series.shape, series.axes
        self._samples = 1
        if stored_axes.endswith("YXS") and page.planarconfig == 1 and page.samplesperpixel in (3, 4):
            self._samples = page.samplesperpixel  # a colour image, unless all channels are equal
            shape, stored_axes = shape[:-1], stored_axes[:-1]
        elif series.kind == "shaped" and page.planarconfig == 2:
            stored_axes = stored_axes.replace("S", "Q")
        self.shape, self.letters = lay_out(self.name, shape, stored_axes, axes)
        values = self.shape[1] * self.shape[2] * self._samples
        self._planes = page.samplesperpixel if page.planarconfig == 2 else 1
        if page.size != values * self._planes:
            raise FileError(
                f"{self.name} stores {page.size} values a page, but its sections have "
                f"{self.shape[1]} × {self.shape[2]}; save it as a plain stack with one page a section"
            )
        found = series.size // page.size
        believed = page.is_ome or series.kind in ("imagej", "shaped")
        if (announced > found and not believed) or _chain_is_broken(tiff):
            raise _truncated(self.name, found, announced)
        self._stored_dtype = np.dtype(series.dtype).newbyteorder(tiff.byteorder)
        self.is_bilevel = series.dtype == bool
        self.dtype = np.dtype(np.uint8) if self.is_bilevel else self._stored_dtype.newbyteorder("=")
        self.white_is_zero = page.photometric == WHITE_IS_ZERO and not self.is_bilevel
        self.lossy = page.compression in JPEG_COMPRESSIONS
        self.stated = _lengths(tiff, series)
        self.voxel_size = calibration.complete(self.stated)
        section_bytes = values * self._stored_dtype.itemsize
        if section_bytes > max(2**30, LARGEST_EXPANSION * size):
            raise FileError(
                f"{self.name} claims sections of {section_bytes / 2**30:.1f} GiB in a file of {size:,} bytes; it is "
                "damaged or not an image"
            )
        self._locate_sections(tiff, series, section_bytes)
        page.decode  # noqa: B018 - cached; for JPEG it reads from the open file
        if self._samples > 1:
            check_claim(self.name, section_bytes * self.shape[0], section_bytes, size)
            self.read(0)

    def _locate_sections(
        self, tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, section_bytes: int
    ) -> None:
        """Note where each section's data lie: `_offsets` if each is contiguous and plain, else `_pages`."""
        count, start = self.shape[0], series.dataoffset
        self._offsets: Sequence[int] = ()
        self._pages: list[Page] = []
        if start is not None and not self.is_bilevel:
            self._offsets = range(start, start + count * section_bytes, section_bytes)
            end = start + count * section_bytes
        else:
            self._pages = [page for page in series.pages if page is not None and page.parent is tiff]
            if len(self._pages) < len(series.pages):
                raise FileError(
                    f"{self.name} refers to sections in other files; give the folder that they are in, or save the "
                    "stack as one file"
                )
            self._check_pages()
            end = max(sum(segment) for page in self._pages for segment in _segments(page))
            if self._planes == 1 and all(_is_plain(page, self._keyframe) for page in self._pages):
                self._offsets = [page.dataoffsets[0] for page in self._pages]
                end = max(self._offsets) + section_bytes
        if end > tiff.filehandle.size:
            raise FileError(
                f"{self.name} is truncated: its {count} sections end at byte {end}, but the file "
                f"ends at {tiff.filehandle.size}; copy or download it again"
            )

    def _check_pages(self) -> None:
        if len(self._pages) * self._planes != self.shape[0]:
            raise _truncated(self.name, len(self._pages), self.shape[0])
        for index, page in enumerate(self._pages):
            segments = _segments(page)
            if len(segments) != math.prod(self._keyframe.chunked) or not all(map(all, segments)):
                raise FileError(
                    f"{self.name} is incomplete: page {index} has no data; copy or export it again"
                )

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section, writable; see `Volume.read`.

        Raises
        ------
        FileError
            If the section is damaged, with its number.
        """
        check_section(self, section)
        first, last, row_rest = span(rows, self.shape[1])
        left, right, column_rest = span(columns, self.shape[2])
        with naming_damage(f"section {section} of {self.name}"):
            if self._offsets:
                values = self._read_rows(self._offsets[section], first, last)[:, left:right]
            else:
                with self.path.open("rb") as file:
                    values = self._read_segments(file, section, (first, last, left, right))
        if self._samples > 1 and (values[..., :3] != values[..., :1]).any():
            raise InputError(
                f"{self.name} is a colour image: the channels of section {section} differ; mitoda reads grey values, "
                "so convert it first (in Fiji: Image > Type > 8-bit)"
            )
        region = values[row_rest, column_rest, 0]
        if self.is_bilevel:
            return np.where(region, np.uint8(255), np.uint8(0))
        return region.astype(self.dtype, copy=False)

    def _read_rows(self, offset: int, first: int, last: int) -> np.ndarray:
        row = self.shape[2] * self._samples
        start = offset + first * row * self._stored_dtype.itemsize
        values = np.fromfile(self.path, self._stored_dtype, (last - first) * row, offset=start)
        return values.reshape(last - first, self.shape[2], self._samples)

    def _read_segments(self, file: BinaryIO, section: int, region: Region) -> np.ndarray:
        """Decode the strips or tiles that overlap the region."""
        first, last, left, right = region
        keyframe, page = self._keyframe, self._pages[section // self._planes]
        _, rows, columns = self.shape
        height = keyframe.tilelength if keyframe.is_tiled else min(keyframe.rowsperstrip, rows)
        width = keyframe.tilewidth if keyframe.is_tiled else columns
        across = math.ceil(columns / width)
        plane = section % self._planes * across * math.ceil(rows / height)
        values = np.empty(
            (last - first, right - left, self._samples), bool if self.is_bilevel else self.dtype
        )
        tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader} if self.lossy else {}
        for top in range(first // height * height, last, height):
            for start in range(left // width * width, right, width):
                index = plane + top // height * across + start // width
                file.seek(page.dataoffsets[index])
                segment, *_ = keyframe.decode(file.read(page.databytecounts[index]), index, **tables)
                if segment is None:
                    raise EOFError(f"segment {index} is empty")
                low, high = max(first, top), min(last, top + height)
                near, far = max(left, start), min(right, start + width)
                part = segment[0, low - top : high - top, near - start : far - start]
                values[low - first : high - first, near - left : far - left] = part
        return values


@contextmanager
def quiet_tifffile() -> Iterator[None]:
    """Drop the log messages of tifffile in this thread: what matters raises an error here."""
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


def _lengths(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> Lengths:
    tags = series.keyframe.tags
    if tiff.ome_metadata and series.kind == "ome":
        return calibration.from_ome(tiff.ome_metadata, tiff.series.index(series))
    if tiff.imagej_metadata and "XResolution" in tags and "YResolution" in tags:
        return calibration.from_imagej(
            tiff.imagej_metadata, tags["XResolution"].value, tags["YResolution"].value
        )
    return calibration.from_microscope(
        tiff.fei_metadata or {}, tiff.sem_metadata or {}, tiff.tvips_metadata or {}, tiff.sis_metadata or {}
    )


def _announced_pages(page: tifffile.TiffPage) -> int:
    """Return how many pages the description of the first page promises, 0 if it does not say."""
    if page.is_shaped:
        shape = tifffile.tifffile.shaped_description_metadata(page.shaped_description or "")["shape"]
        return int(math.prod(shape) // max(1, page.size))
    if page.is_imagej:
        lines = tifffile.tifffile.imagej_description_metadata(page.imagej_description or "")
        return max(int(lines.get(key, 0)) for key in ("images", "slices", "frames"))
    images = re.findall(r"<[^<>]*\bPixels\s[^<>]*>", page.description) if page.is_ome else []
    return max(
        (math.prod(map(int, re.findall(r'\bSize[ZCT]="(\d+)"', image))) for image in images), default=0
    )


def _truncated(name: str, found: int, announced: int) -> FileError:
    if announced > found:
        what = f"it announces {announced} sections, but only {found} could be found"
    else:
        what = "it says that more follows after its end"
    return FileError(f"{name} is truncated: {what}; copy or download it again")


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
    ends = [offset + count for offset, count in _segments(page)]
    return ends[:-1] == list(page.dataoffsets[1:])


def _segments(page: Page) -> list[tuple[int, int]]:
    """Offset and number of bytes of each strip or tile."""
    return list(zip(page.dataoffsets, page.databytecounts, strict=True))
