"""Mitochondria found: the share of labelled objects that a mask covers, by their size."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

SizeClass = Literal["small", "medium", "large"]

SPECK_NM3 = 1e5
"""Labelled components below this, 46 nm across, are strokes of the annotation and no mitochondria."""
SMALL_NM3, LARGE_NM3 = 5e6, 2e7
"""Limits of the size classes: about the thirds of the labelled components of vnc3, lucchi and cdeep3m together (0.005
and 0.02 µm³, spheres 210 and 340 nm across)."""


@dataclass(frozen=True)
class ObjectCount:
    """Labelled objects of a size class."""

    found: int
    total: int


def count_objects(
    mask: np.ndarray,
    labels: np.ndarray,
    voxel_size: tuple[float, float, float],
    sections: Iterable[int] | None = None,
) -> dict[SizeClass, ObjectCount]:
    """Count the labelled objects that a mask covers by at least half, by size class.

    An object is a component of the labels, joined along faces, edges and corners through all sections; mitochondria
    that touch are one object. Its size is its labelled volume, so that of one cut by the end of the stack is the volume
    inside. Components below `SPECK_NM3` are not counted.

    Parameters
    ----------
    mask, labels : ndarray of bool, shape (sections, rows, columns)
    voxel_size : (float, float, float)
        Nanometres.
    sections : iterable of int, optional
        Sections that are scored: of an object, only its voxels there must be covered, and an object without any is not
        counted. By default all.

    Examples
    --------
    >>> labels = np.array([[[1, 1, 0, 0, 1, 1, 1]]], bool)
    >>> mask = np.array([[[0, 1, 1, 1, 0, 0, 1]]], bool)
    >>> count_objects(mask, labels, (100, 100, 100))["small"]
    ObjectCount(found=1, total=2)
    """
    numbers, count = ndimage.label(labels, np.ones((3, 3, 3), bool))
    volumes = np.bincount(numbers.ravel(), minlength=count + 1) * float(np.prod(voxel_size))
    scored, covered = np.zeros((2, count + 1), np.int64)
    for section in range(len(labels)) if sections is None else sections:
        scored += np.bincount(numbers[section].ravel(), minlength=count + 1)
        covered += np.bincount(numbers[section][mask[section]], minlength=count + 1)
    counted = (scored > 0) & (volumes >= SPECK_NM3)
    counted[0] = False
    found = counted & (2 * covered >= scored)
    classes: dict[SizeClass, np.ndarray] = {
        "small": volumes < SMALL_NM3,
        "medium": (volumes >= SMALL_NM3) & (volumes < LARGE_NM3),
        "large": volumes >= LARGE_NM3,
    }
    return {
        name: ObjectCount(int(np.count_nonzero(found & of)), int(np.count_nonzero(counted & of)))
        for name, of in classes.items()
    }
