"""Mitochondria one by one: from the mask of a stack to a number for each, in bounded memory.

mask ──> cells of 20 nm ──> basins: one number a body        (first reading; `basins`)
mask ──> pixels take the number of the nearest body in their section, along foreground
         what no body reaches in a section is a part of its own
     ──> parts join the neighbour that they touch most       (second reading)
     ──> numbers from 1, in the order of the first voxel
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mitoda.errors import InputError
from mitoda.postprocessing.basins import MIN_NECK, SHALLOW_NM, SLAB, Basins, Edges, group
from mitoda.postprocessing.cells import Grid, layers
from mitoda.postprocessing.components import NEIGHBOURS, DisjointSets
from mitoda.postprocessing.spool import Spool
from mitoda.volumes import Volume, VoxelSize, open_labels, write_sections
from mitoda.volumes.files import check_output, output_kind
from mitoda.volumes.opening import Source, as_volume
from mitoda.volumes.volume import check_same_shape, origin_of
from mitoda.volumes.voxel_size import check_voxel_size

BACK = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Pixels that touch within a section: half of the neighbours in `components.NEIGHBOURS`."""


class Instances:
    """The mitochondria of a mask, each with a number: iterate to get the sections.

    Attributes
    ----------
    count : int
        Number of mitochondria.
    components : int
        Number of connected components of the mask, before touching mitochondria are split.
    shape : (int, int, int)
    dtype : dtype
        uint16, or uint32 of more than 65,535 mitochondria.
    voxel_size : (float, float, float) or None
        Nanometres.
    origin : (float, float, float)
        Position of the first voxel in nanometres, that of the mask.
    """

    origin: VoxelSize = (0.0, 0.0, 0.0)

    def __init__(
        self,
        sections: Spool,
        numbers: np.ndarray,
        components: int,
        shape: tuple[int, int, int],
        voxel_size: VoxelSize | None,
    ) -> None:
        self._sections = sections
        self._numbers = numbers
        self.count = len(np.unique(numbers)) - 1
        self.components = components
        self.shape = shape
        self.dtype = np.dtype(np.uint16 if self.count <= np.iinfo(np.uint16).max else np.uint32)
        self.voxel_size = voxel_size

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield sections, shape (rows, columns): numbers from 1 in the order of their first voxel, 0 is background."""
        final = np.zeros(len(self._numbers), self.dtype)
        known = 0
        for section in range(len(self._sections)):
            numbers = self._numbers[self._sections.read(section)[0]]
            found, where = np.unique(numbers, return_index=True)
            fresh = found[np.argsort(where)]
            fresh = fresh[(fresh > 0) & (final[fresh] == 0)]
            final[fresh] = np.arange(known + 1, known + len(fresh) + 1)
            known += len(fresh)
            yield final[numbers]


def instances(
    mask: Volume | Source,
    *,
    probability: Volume | Source | None = None,
    split: bool = True,
    min_neck: float = MIN_NECK,
    min_size: int = 0,
    voxel_size: VoxelSize | None = None,
    slab: int = SLAB,
    progress: Callable[..., Iterable[int]] | None = None,
) -> Instances:
    """Number the mitochondria of a mask, and split those that touch.

    Touching mitochondria are split where the neck between them is thin: by a watershed on the distance to the
    background in nanometres, through all sections at once; see `postprocessing.basins`. Numbers are connected bodies:
    pixels touch along edges and corners within a section, and where they overlap between sections. Memory is bounded
    by a few sections, and grows with the number of mitochondria.

    Parameters
    ----------
    mask : Volume, path or ndarray
        Non-zero is foreground. A 2-D array is one section.
    probability : Volume, path or ndarray, optional
        Of the same shape: float from 0 to 1, uint8 / 255 or uint16 / 65535. Makes necks thinner where it is low.
    split : bool
        False numbers connected components, and needs no voxel size.
    min_neck : float
        From 0 to 1: where the neck is thinner than this share of the thinner of two bodies, they are split.
    min_size : int
        Mitochondria of fewer voxels get no number.
    voxel_size : (float, float, float), optional
        Nanometres: section thickness, rows, columns. By default that of the mask.
    slab : int
        Layers of about 20 nm computed together. The result does not depend on it.
    progress : callable, optional
        Gets an iterable and `total`, returns an equal iterable; for example `rich.progress.track`.

    Raises
    ------
    InputError
        If the voxel size is unknown, or the shapes differ.

    Examples
    --------
    >>> mask = np.zeros((1, 60, 120), bool)
    >>> mask[0, 10:50, 10:50] = mask[0, 10:50, 52:92] = mask[0, 28:32, 50:52] = True  # two squares and a bridge
    >>> result = instances(mask, voxel_size=(5, 5, 5))
    >>> result.components, result.count, next(iter(result))[30, [20, 70]].tolist()
    (1, 2, [1, 2])
    """
    volume = as_volume(mask, open_labels)
    size = volume.voxel_size if voxel_size is None else check_voxel_size(voxel_size)
    chance = None if probability is None else as_volume(probability)
    if chance is not None:
        check_same_shape(volume, chance)
    if not 0 <= min_neck <= 1:
        raise InputError(f"min_neck is {min_neck}; expected a share from 0 to 1")
    if split and size is None:
        raise InputError(
            f"{volume.name} states no voxel size, and touching mitochondria are split by distances in nanometres; give "
            "--voxel-size Z Y X, or --no-split for connected components"
        )
    bodies = None
    if split and size is not None:
        grid = Grid(size)
        bodies = Basins(layers(volume, chance, grid), grid, min_neck, slab)
    numbering = _Numbering(bodies)
    order: Iterable[int] = range(volume.shape[0])
    for section in progress(order, total=volume.shape[0]) if progress else order:
        numbering.add(volume.read(section) != 0, section)
    found = numbering.finish(volume.shape, size, min_size)
    found.origin = origin_of(volume)
    return found


def check_labels_path(path: Path, inputs: Iterable[Path], overwrite: bool = False) -> None:
    """Refuse a file that labels could not be written to.

    Raises
    ------
    InputError, FileError
        If the ending of its name is unknown, or as `check_output` raises it.
    """
    output_kind(path)
    check_output(path, inputs, overwrite)


def write_instances(
    path: Path, found: Instances, *, overwrite: bool = False, zarr_version: str = "0.5"
) -> None:
    """Write labels with the voxel size: uint16, or uint32, in TIFF as a BigTIFF."""
    write_sections(
        path,
        found,
        found.shape,
        found.dtype,
        found.voxel_size,
        overwrite=overwrite,
        origin=found.origin,
        zarr_version=zarr_version,
    )


class _Numbering:
    """Gives every pixel the number of a body or of a part, section by section, and joins parts."""

    def __init__(self, bodies: Basins | None) -> None:
        self._bodies = bodies
        self._sets = DisjointSets()
        self._heights = np.zeros(1) if bodies is None else bodies.peaks
        self._sets.add(len(self._heights) - 1)
        self._voxels = np.zeros(len(self._heights), np.int64)
        """Voxels of each body; of a part in `_part_voxels`."""
        self._part_voxels: list[int] = []
        self._contacts: list[Edges] = []
        self._sections = Spool()
        self._above: np.ndarray | None = None

    def add(self, mask: np.ndarray, section: int) -> None:
        """Number the pixels of the next section."""
        numbers = self._reached(mask, section)
        self._voxels += np.bincount(numbers[mask], minlength=len(self._voxels))
        parts, count = ndimage.label(mask & (numbers == 0), NEIGHBOURS)
        if count:
            first = self._sets.add(count)
            self._part_voxels.extend(np.bincount(parts.ravel())[1:].tolist())
            numbers = np.where(parts > 0, parts.astype(np.int32) + np.int32(first - 1), numbers)
        self._add_contacts(numbers)
        self._sections.append(numbers)
        self._above = numbers

    def _reached(self, mask: np.ndarray, section: int) -> np.ndarray:
        """The body nearest to each pixel of the foreground, along foreground; 0 where none is in reach."""
        from skimage.segmentation import watershed

        if self._bodies is None or not mask.any():
            return np.zeros(mask.shape, np.int32)
        grid = self._bodies.grid
        cells = self._bodies.read(section // grid.steps[0])
        seeds = np.where(mask, grid.expand(cells, (mask.shape[0], mask.shape[1])), 0)
        if not seeds.any():
            return seeds
        box = ndimage.find_objects(mask.astype(np.uint8))[0]
        flat = np.zeros(seeds[box].shape, np.uint8)
        seeds[box] = watershed(flat, seeds[box], NEIGHBOURS, mask=mask[box])
        return seeds

    def _add_contacts(self, numbers: np.ndarray) -> None:
        """Count pixels in which different numbers touch, within the section and with the one before."""
        padded = np.pad(numbers, 1)
        flat, width = padded.ravel(), padded.shape[1]
        pixels = np.flatnonzero(flat)
        near = [flat[pixels + rows * width + columns] for rows, columns in BACK]
        if self._above is not None:
            near.append(np.pad(self._above, 1).ravel()[pixels])
        one, other = np.concatenate([flat[pixels]] * len(near)), np.concatenate(near)
        ones = np.ones(np.count_nonzero(other), np.int64)
        self._contacts.append(group(one[other > 0], other[other > 0], ones, np.add))

    def finish(self, shape: tuple[int, int, int], voxel_size: VoxelSize | None, min_size: int) -> Instances:
        """Join parts, and small bodies that no pass joins, to what they touch most; leave out what is too small."""
        low, high, contact = (np.concatenate(part) for part in zip(*self._contacts, strict=True))
        low, high, contact = group(low, high, contact, np.add)
        touching = coo_array((contact, (low, high)), (len(self._sets),) * 2)
        heights = np.zeros(len(self._sets))
        heights[: len(self._heights)] = self._heights
        for edge in np.lexsort((high, low, -contact)).tolist():
            one, other = self._sets.root(int(low[edge])), self._sets.root(int(high[edge]))
            if one != other and min(heights[one], heights[other]) < SHALLOW_NM:
                self._sets.join(one, other)
                heights[min(one, other)] = max(heights[one], heights[other])
        numbers, voxels = self._sets.roots(), np.append(self._voxels, self._part_voxels)
        voxels[0] = 0
        sizes = np.bincount(numbers, voxels)
        components = int(connected_components(touching)[0]) - int(np.count_nonzero(voxels == 0))
        kept = np.where(sizes[numbers] >= max(min_size, 1), numbers, 0)
        return Instances(self._sections, kept, components, shape, voxel_size)
