"""One split from published files to volume.tif, mask.tif and, where not all is annotated, ignore.tif."""

import hashlib
import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mitoda.datasets.cache import IGNORE, MASK, VOLUME
from mitoda.datasets.schema import Dataset, LabelRule
from mitoda.datasets.sections import read_sections
from mitoda.errors import InputError
from mitoda.volumes.writer import SectionWriter

Progress = tuple[int, int]
"""Sections done, sections in all."""


@dataclass(frozen=True)
class Product:
    """One converted file."""

    name: str
    array_sha256: str | None = None
    """sha256 of the array in C order: of the grey values, or of the mask as 0 and 1; None for ignore.tif."""
    foreground: float | None = None
    """Share of voxels that are set; None for grey values."""


def convert_volume(
    dataset: Dataset, split: str, files: Mapping[str, Path], folder: Path
) -> Generator[Progress, None, list[Product]]:
    """Write `folder`/volume.tif, holding one section in memory, and return what was written.

    Raises
    ------
    InputError
        If a section has another shape or type than the table says, or their number or their hash differ.
    FileError
        If a source cannot be read.
    """
    entry = dataset.splits[split]
    what = f"the volume of {dataset.name}:{split}"
    sections = (_single_channel(section, what) for section in read_sections(entry.images, files))
    digest = hashlib.sha256()
    with _writer(folder / VOLUME, dataset, split) as writer:
        for done, section in enumerate(_of_shape(sections, entry.shape, what), start=1):
            if section.dtype != np.uint8:
                raise InputError(f"{what} holds {section.dtype}; uint8 was expected")
            digest.update(section.tobytes())
            writer.write(section)
            yield done, entry.shape[0]
        _check_hash(digest.hexdigest(), entry.volume_sha256, what)
    return [Product(VOLUME, digest.hexdigest())]


def convert_labels(
    dataset: Dataset, split: str, files: Mapping[str, Path], folder: Path
) -> Generator[Progress, None, list[Product]]:
    """Write `folder`/mask.tif, 255 where the source says mitochondrion, else 0, and return what was written.

    Where the source marks voxels as not annotated, these are 0 in the mask and 255 in `folder`/ignore.tif.
    They are a
    file of their own because every reader of masks takes anything that is not zero for a mitochondrion.

    Raises
    ------
    InputError
        If shapes, their number, values or hash are not what the table says, or no voxel is a mitochondrion.
    FileError
        If a source cannot be read.
    """
    entry, rule = dataset.splits[split], dataset.label_rule
    if entry.labels is None:
        raise InputError(f"{dataset.name}:{split} has no labels")
    what = f"the labels of {dataset.name}:{split}"
    sections = (_lowest_channel(section) for section in read_sections(entry.labels, files))
    digest, found, foreground = hashlib.sha256(), set[float](), 0
    with ExitStack() as stack:
        mask = stack.enter_context(_writer(folder / MASK, dataset, split))
        ignored = (
            None if rule.ignore is None else stack.enter_context(_writer(folder / IGNORE, dataset, split))
        )
        for done, section in enumerate(_of_shape(sections, entry.shape, what), start=1):
            if rule.allowed is not None:
                found.update(np.unique(section).tolist())
            is_foreground = section > rule.above
            foreground += int(np.count_nonzero(is_foreground))
            digest.update(is_foreground.tobytes())
            mask.write(is_foreground * np.uint8(255))
            if ignored is not None:
                ignored.write((section == rule.ignore) * np.uint8(255))
            yield done, entry.shape[0]
        _check_values(found, rule, what)
        if foreground == 0:
            raise InputError(
                f"{what} hold no mitochondrion: no voxel exceeds {rule.above}; this is the wrong file"
            )
        _check_hash(digest.hexdigest(), entry.mask_sha256, what)
    products = [Product(MASK, digest.hexdigest(), foreground / math.prod(entry.shape))]
    return products if ignored is None else [*products, Product(IGNORE)]


def _writer(path: Path, dataset: Dataset, split: str) -> SectionWriter:
    """Return a writer of uint8 sections that completes `path` only if all of them arrive."""
    return SectionWriter(path, dataset.splits[split].shape, np.dtype(np.uint8), dataset.voxel_size)


def _of_shape(sections: Iterable[np.ndarray], shape: tuple[int, int, int], what: str) -> Iterator[np.ndarray]:
    """Yield the sections, contiguous, as long as they are what the table promises.

    Raises
    ------
    InputError
        At the first section of another shape, or when there are more or fewer than expected.
    """
    count = 0
    for section in sections:
        if section.shape != shape[1:]:
            raise InputError(f"{what}: section {count} has the shape {section.shape}, expected {shape[1:]}")
        if count == shape[0]:
            raise InputError(f"{what}: there are more than the {shape[0]} sections expected")
        yield np.ascontiguousarray(section)
        count += 1
    if count < shape[0]:
        raise InputError(f"{what}: there are {count} sections, expected {shape[0]}")


def _single_channel(section: np.ndarray, what: str) -> np.ndarray:
    """Return a grey image stored with colour channels as one channel; alpha is dropped.

    Raises
    ------
    InputError
        If red, green and blue differ.
    """
    if section.ndim != 3:
        return section
    grey = section[..., 0]
    if section.shape[-1] >= 3 and not all(np.array_equal(grey, section[..., channel]) for channel in (1, 2)):
        raise InputError(f"{what} is in colour; grey values were expected")
    return grey


def _lowest_channel(section: np.ndarray) -> np.ndarray:
    """Return labels stored with colour channels as one channel.

    A pixel counts as bright only if all its colours are (white is a mitochondrion, a coloured mark is not),
    and as 0
    where alpha makes it transparent.
    """
    if section.ndim != 3:
        return section
    has_alpha = section.shape[-1] in (2, 4)
    colours = section[..., :-1] if has_alpha else section
    lowest = colours.min(axis=-1)
    if has_alpha:
        lowest[section[..., -1] == 0] = 0
    return lowest


def _check_values(found: set[float], rule: LabelRule, what: str) -> None:
    """Refuse values that no allowed set holds."""
    if rule.allowed is None or any(found <= set(allowed) for allowed in rule.allowed):
        return
    expected = " or ".join(", ".join(map(str, allowed)) for allowed in rule.allowed)
    some = ", ".join(f"{value:g}" for value in sorted(found)[:8])
    raise InputError(
        f"{what} hold {len(found)} values ({some}{', ...' if len(found) > 8 else ''}), expected {expected}"
    )


def _check_hash(found: str, expected: str | None, what: str) -> None:
    """Refuse an array that is not the known one."""
    if expected is not None and found != expected:
        raise InputError(f"{what} decoded to an array with sha256 {found}, expected {expected}")
