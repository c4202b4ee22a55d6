"""A random sample of a mask for a person to judge: found objects, and boxes to search for missed mitochondria.

Each object and each box is drawn with a probability that the design fixes:

- Objects are divided into up to three size classes and drawn at random within each, about as many from each class, so
  that small and large ones are judged alike. The probability is drawn / found of the class.
- The stack is divided into boxes of equal size, which are drawn at random. A missed mitochondrion belongs to exactly
  one box, the one in which it begins, so the count of all boxes is that of the stack (the disector principle:
  D. C. Sterio, J. Microsc. 134, 1984, 10.1111/j.1365-2818.1984.tb02501.x).

A larger sample with the same seed contains the smaller one, so that answers can be kept.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mitoda.data.filled import TissueMap
from mitoda.errors import InputError
from mitoda.volumes import Volume

SIZE_CLASSES = {1: ("all sizes",), 2: ("small", "large"), 3: ("small", "medium", "large")}
"""Names by number of classes."""
SMALLEST_CLASS = 5
"""Objects that a size class has at least."""
BOX_NM = (600.0, 2000.0, 2000.0)
"""Sides of a box: a dozen pictures 50 nm apart, which hold a few mitochondria each."""
BOX_CLASS = "box"


@dataclass(frozen=True)
class SizeClass:
    """Objects of similar volume."""

    name: str
    from_voxels: float
    to_voxels: float
    """Not reached; infinite for the largest."""
    found: int
    """Objects in it."""


@dataclass(frozen=True)
class Item:
    """One thing to judge."""

    number: str
    """Names it in the page and in the table of answers, e.g. "object 17"."""
    size_class: str
    """`BOX_CLASS` if it is a box."""
    total: int
    """Objects of its class in the stack, or boxes."""
    drawn: int
    """Of them, how many are in the sample."""
    voxels: int
    start: tuple[int, int, int]
    """First section, row and column."""
    stop: tuple[int, int, int]
    """The first beyond it."""
    label: int = 0
    """Number of the object in the volume of object numbers; 0 for a box."""

    @property
    def is_box(self) -> bool:
        """Whether it is a box to search, not a found object."""
        return self.size_class == BOX_CLASS

    @property
    def probability(self) -> float:
        """With which it was drawn."""
        return self.drawn / self.total


def size_classes(voxels: np.ndarray) -> list[SizeClass]:
    """Divide objects into at most three classes of equal width in log volume, between percentiles 5 and 95.

    A limit beside which a class would have fewer than `SMALLEST_CLASS` objects is left out.

    Parameters
    ----------
    voxels : ndarray, shape (objects,)

    Examples
    --------
    >>> [(c.name, c.found) for c in size_classes(np.repeat([10, 100, 1000], 20))]
    [('small', 20), ('medium', 20), ('large', 20)]
    >>> [(c.name, c.found) for c in size_classes(np.array([7, 7, 7]))]
    [('all sizes', 3)]
    """
    low, high = np.log(np.percentile(voxels, (5, 95)))
    kept = [0.0]
    for limit in np.exp(np.linspace(low, high, 4)[1:3]):
        if min(_between(voxels, kept[-1], limit), _between(voxels, limit, math.inf)) >= SMALLEST_CLASS:
            kept.append(float(limit))
    limits = [*kept, math.inf]
    return [
        SizeClass(name, low, high, _between(voxels, low, high))
        for name, (low, high) in zip(SIZE_CLASSES[len(kept)], pairwise(limits), strict=True)
    ]


def _between(voxels: np.ndarray, low: float, high: float) -> int:
    return int(np.count_nonzero((voxels >= low) & (voxels < high)))


def allocate(found: list[int], count: int) -> list[int]:
    """Share `count` draws equally among classes; what a class does not have goes to the others.

    Examples
    --------
    >>> allocate([100, 4, 100], 30)
    [13, 4, 13]
    """
    shares = [0] * len(found)
    left = min(count, sum(found))
    while left:
        smallest = min(
            (index for index, share in enumerate(shares) if share < found[index]), key=shares.__getitem__
        )
        shares[smallest] += 1
        left -= 1
    return shares


def draw_objects(
    numbers: np.ndarray, voxels: np.ndarray, starts: np.ndarray, stops: np.ndarray, count: int, seed: int
) -> tuple[list[SizeClass], list[Item]]:
    """Draw objects at random within each size class, and put them in random order.

    Parameters
    ----------
    numbers, voxels, starts, stops
        As `FoundObjects` has them.
    count : int
        Objects to draw; all if there are fewer.
    seed : int
    """
    if count < 1:
        raise InputError(f"objects is a number of 1 or more; got {count}")
    classes = size_classes(voxels)
    items = []
    for index, (one, drawn) in enumerate(
        zip(classes, allocate([one.found for one in classes], count), strict=True)
    ):
        members = np.flatnonzero((voxels >= one.from_voxels) & (voxels < one.to_voxels))
        chosen = np.random.default_rng([seed, index]).permutation(members)[:drawn]
        items += [
            Item(
                f"object {numbers[k]}",
                one.name,
                one.found,
                drawn,
                int(voxels[k]),
                _corner(starts[k]),
                _corner(stops[k]),
                int(numbers[k]),
            )
            for k in chosen
        ]
    order = np.random.default_rng([seed, len(classes)]).permutation(len(items))
    return classes, [items[k] for k in order]


def _corner(values: np.ndarray) -> tuple[int, int, int]:
    section, row, column = (int(value) for value in values)
    return section, row, column


def draw_boxes(stack: Volume, count: int, seed: int) -> list[Item]:
    """Divide the stack into boxes and draw some at random, in random order.

    Boxes without tissue in their middle section are left out before drawing.

    Parameters
    ----------
    stack : Volume
        Grey values. Its voxel size must be known.
    count : int
        Boxes to draw; all if there are fewer.
    seed : int
    """
    if count < 1:
        raise InputError(f"boxes is a number of 1 or more; got {count}")
    if stack.voxel_size is None:
        raise InputError(f"the voxel size of {stack.name} is unknown, so boxes have no size")
    tissue = TissueMap(stack)
    edges = [
        np.linspace(0, size, min(size, max(1, round(size * length / side))) + 1).round().astype(int).tolist()
        for size, length, side in zip(stack.shape, stack.voxel_size, BOX_NM, strict=True)
    ]
    boxes = []
    for top, bottom in pairwise(edges[0]):
        outside = tissue.outside((top + bottom) // 2)
        boxes += [
            ((top, rows[0], columns[0]), (bottom, rows[1], columns[1]))
            for rows in pairwise(edges[1])
            for columns in pairwise(edges[2])
            if outside is None or not outside[slice(*rows), slice(*columns)].all()
        ]
    if not boxes:
        raise InputError(f"{stack.name} has no tissue to search for missed mitochondria")
    chosen = np.random.default_rng([seed, 9]).permutation(len(boxes))[:count]
    return [
        Item(
            f"box {k + 1}",
            BOX_CLASS,
            len(boxes),
            len(chosen),
            math.prod(b - a for a, b in zip(*boxes[k], strict=True)),
            *boxes[k],
        )
        for k in chosen.tolist()
    ]
