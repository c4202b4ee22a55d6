"""Find what is not tissue in a section: padding, banners, label boxes, scale bars, empty resin and hot pixels.

Alignment programs and microscopes write areas of one grey value, within the noise of a lossy compression. Tissue has
no such area, because every detector has noise. So padding is flat: connected pixels whose 3×3 neighbourhoods hardly
vary, and which lie along the border of the image, fill a box, or are too thick for a lumen or a black organelle.

Empty resin has noise, but no structure: its grey values, averaged over the noise, hardly vary.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

TAIL = 0.5
"""Percent of the grey values at either end that do not count for the range of a section: 0.1 % of hot pixels."""
FLAT = 2 / 128
"""Share of the section's range by which a flat 3×3 neighbourhood may vary: padding with noise of ±1 in 8 bits.
Neighbourhoods of Lucchi, VNC III, CDeep3M and FIB-25 vary by 30 to 70 of 255 grey values at the median."""
LEAST_SHARE = 0.002
"""Share of a section below which padding is not looked for; on real stacks so much is flat by chance."""
CONTACT = 0.15
"""Share of a side of the image along which padding must lie; a black mitochondrion at the border lies along less."""
WHOLE_SIDE = 0.9
"""Share of a side of the image along which a banner lies; its text may touch the border."""
BOX = 0.85
"""Share of its bounding box that a label, a banner or a scale bar fills, with the text in it."""
BOX_SIDES = (2, 16)
"""Pixels that the flat inside of a box has at least, along its shorter and its longer side."""
RADIUS = 500.0
"""Nanometres. A flat or empty area inside the section must hold a disc of this radius, unless it is a box."""
ISLAND = 0.1
"""Share of the largest tissue area: smaller ones that touch a banner or a box are its text."""
RIM = 8
"""Pixels that ringing reaches around padding: the side of a JPEG block."""
RINGING = (0.15, 0.1)
"""Shares of the section's range: variation of a neighbourhood, and difference from the padding, in ringing."""


class Region(NamedTuple):
    """A connected flat region."""

    inside: np.ndarray
    """bool, in its bounding box."""
    box: tuple[slice, slice]
    value: float
    """Its grey value."""


def find_padding(section: np.ndarray, pixel: tuple[float, float]) -> np.ndarray | None:
    """Find padding, banners, label boxes and scale bars.

    Takes 4 ms per megapixel of uint8 where nothing is flat, and about 60 ms otherwise. Nothing is found on any of 508
    sections of six unpadded volumes (Lucchi, VNC III, CDeep3M, FIB-25).

    Parameters
    ----------
    section : ndarray, shape (rows, columns)
        Grey values as stored: resampling blurs the borders of padding.
    pixel : (float, float)
        Pixel size in nanometres.

    Returns
    -------
    ndarray or None
        bool (rows, columns), True in padding; None if there is no padding or only padding.
    """
    if min(section.shape) < 3:
        return None
    variation = local_range(section)
    spread = grey_spread(section[::8, ::8], variation[::8, ::8])
    if spread <= 0:
        return None
    limit = FLAT * spread if section.dtype.kind == "f" else round(FLAT * spread)
    flat = variation <= section.dtype.type(limit)
    if np.count_nonzero(flat) < LEAST_SHARE * flat.size:
        return None
    padding, enclosing = np.zeros(section.shape, bool), np.zeros(section.shape, bool)
    for region, encloses in _padding_regions(section, flat, pixel, FLAT * spread):
        padding[region.box] |= region.inside
        _extend(padding, section, variation, region, spread)
        if encloses:
            enclosing[region.box] |= padding[region.box]
    if not enclosing.any() and np.count_nonzero(padding) < LEAST_SHARE * padding.size:
        return None
    padding |= _enclosed_text(padding, enclosing)
    padding = ~grown(~grown(padding))  # lines of a pixel or two between padding of two grey values
    return padding if padding.any() and not padding.all() else None


def grey_spread(section: np.ndarray, variation: np.ndarray) -> float:
    """Range of the grey values without the tails; pixels in areas of exactly one value do not count."""
    varied = section[variation > 0]
    if varied.size == 0:
        return 0.0
    low, high = np.percentile(varied, (TAIL, 100 - TAIL))
    return float(high) - float(low)


def local_range(section: np.ndarray) -> np.ndarray:
    """Greatest minus least grey value of each 3×3 neighbourhood; at the border, of what lies in the section."""
    high = _over_three(_over_three(section, np.maximum, 0), np.maximum, 1)
    low = _over_three(_over_three(section, np.minimum, 0), np.minimum, 1)
    return np.asarray(high - low)


def grown(mask: np.ndarray) -> np.ndarray:
    """Return the mask and the eight neighbours of each of its pixels."""
    return _over_three(_over_three(mask, np.logical_or, 0), np.logical_or, 1)


def _over_three(values: np.ndarray, combine: np.ufunc, axis: int) -> np.ndarray:
    """Combine each pixel with its two neighbours along an axis; ten times as fast as a filter of scipy."""
    result = values.copy()
    along = [np.moveaxis(array, axis, 0) for array in (result, values)]
    combine(along[0][:-1], along[1][1:], out=along[0][:-1])
    combine(along[0][1:], along[1][:-1], out=along[0][1:])
    return result


def _padding_regions(
    section: np.ndarray, flat: np.ndarray, pixel: tuple[float, float], tolerance: float
) -> list[tuple[Region, bool]]:
    """Flat regions that are padding, and whether each may enclose text."""
    labels, count = ndimage.label(flat)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    boxes = ndimage.find_objects(labels)
    found = []
    for number in np.flatnonzero(sizes[1:] >= BOX_SIDES[0] * BOX_SIDES[1]) + 1:
        box = boxes[number - 1]
        inside = labels[box] == number
        grey = section[box][inside].astype(np.float32)
        if grey.std() > tolerance:  # a gentle slope is no padding
            continue
        region = Region(inside, box, float(np.median(grey)))
        contact, is_box = _contact(region, section.shape), _is_box(region, section.shape)
        if contact >= CONTACT or is_box or _is_thick(region, pixel):
            found.append((region, contact >= WHOLE_SIDE or is_box))
    return found


def _contact(region: Region, shape: tuple[int, ...]) -> float:
    """Largest share of a side of the image along which a region lies."""
    (rows, columns), inside = region.box, region.inside
    sides = [
        inside[0].sum() / shape[1] if rows.start == 0 else 0.0,
        inside[-1].sum() / shape[1] if rows.stop == shape[0] else 0.0,
        inside[:, 0].sum() / shape[0] if columns.start == 0 else 0.0,
        inside[:, -1].sum() / shape[0] if columns.stop == shape[1] else 0.0,
    ]
    return float(max(sides))


def _is_box(region: Region, shape: tuple[int, ...]) -> bool:
    """Whether a region fills its bounding box, with the text in it."""
    height, width = region.inside.shape
    if min(height, width) < BOX_SIDES[0] or max(height, width) < BOX_SIDES[1]:
        return False
    if height * width > 0.5 * shape[0] * shape[1]:  # what a frame encloses is not text
        return bool(region.inside.mean() >= BOX)
    return bool(ndimage.binary_fill_holes(region.inside).mean() >= BOX)


def _is_thick(region: Region, pixel: tuple[float, float]) -> bool:
    """Whether a region holds a disc of `RADIUS`."""
    if region.inside.sum() * pixel[0] * pixel[1] < np.pi * RADIUS**2:
        return False
    padded = np.pad(region.inside, 1)
    return bool(ndimage.distance_transform_edt(padded, sampling=pixel).max() >= RADIUS)


def _extend(
    padding: np.ndarray, section: np.ndarray, variation: np.ndarray, region: Region, spread: float
) -> None:
    """Extend padding in place to the border of a region, where neighbourhoods reach into tissue, and over ringing."""
    around = tuple(slice(max(0, side.start - RIM - 2), side.stop + RIM + 2) for side in region.box)
    part, own = section[around], padding[around]
    tolerance = 2 * FLAT * spread
    own |= grown(own) & (part >= region.value - tolerance) & (part <= region.value + tolerance)
    tolerance = RINGING[1] * spread
    ringing = (part >= region.value - tolerance) & (part <= region.value + tolerance)
    ringing &= variation[around] <= RINGING[0] * spread
    for _ in range(RIM):
        own |= grown(own) & ringing


def _enclosed_text(padding: np.ndarray, enclosing: np.ndarray) -> np.ndarray:
    """Text, logos and bars: small areas that touch a banner or a box."""
    if not enclosing.any():
        return np.zeros_like(padding)
    labels, count = ndimage.label(~padding, np.ones((3, 3), bool))  # letters may touch at their corners
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    small = sizes < ISLAND * sizes.max()
    small[0] = False
    touched = np.zeros(count + 1, bool)
    touched[labels[grown(enclosing)]] = True
    return np.asarray((small & touched)[labels])


GRAIN = 40.0
"""Nanometres over which grey values are averaged: noise goes, membranes and cristae stay."""
EMPTY = 0.25
"""Share of the tissue's deviation (of averages over `GRAIN`) below which a place is empty. No place of Lucchi, VNC III,
CDeep3M or FIB-25 that holds a disc of `RADIUS` falls below it. With resin over half of each section, F1 in the other
half of Lucchi rises from 0.703 to 0.891 (bright resin) and from 0.803 to 0.900 (grey resin); 0.932 without resin."""
EMPTY_WINDOWS = (200.0, 80.0)
"""Nanometres: standard deviations of the Gaussians for local deviations. The wide one finds empty places, but misses
their last 600 nm before tissue; the narrow one finds how far they reach."""
REACH = 600.0
"""Nanometres that the narrow window may add to what the wide one found."""


def find_empty(section: np.ndarray, pixel: tuple[float, float]) -> np.ndarray | None:
    """Find areas without structure: empty resin, or the lumen of a vessel. Takes 6 ms per megapixel.

    Parameters
    ----------
    section : ndarray, shape (rows, columns)
        With tissue in place of padding.
    pixel : (float, float)
        Pixel size in nanometres. Above `GRAIN` noise cannot be averaged, so only noiseless areas are found.

    Returns
    -------
    ndarray or None
        bool (rows, columns), True where empty; None if no place is, or all are.
    """
    cell = [max(1, round(GRAIN / length)) for length in pixel]
    rows, columns = (size // side for size, side in zip(section.shape, cell, strict=True))
    if min(rows, columns) < 8:
        return None
    means = _cell_means(section[: rows * cell[0], : columns * cell[1]], cell)
    size = [length * side for length, side in zip(pixel, cell, strict=True)]
    wide = _deviation(means, [EMPTY_WINDOWS[0] / length for length in size])
    empty = wide < EMPTY * _typical(wide)
    if np.count_nonzero(empty) * size[0] * size[1] < RADIUS**2:  # a quarter of a disc, in a corner
        return None
    # Resin at the border continues beyond it as far as it needs to hold the disc.
    reach = [round(RADIUS / length) + 1 for length in size]
    empty = np.pad(empty, [(margin, margin) for margin in reach], mode="edge")
    core = ndimage.distance_transform_edt(empty, sampling=size) >= RADIUS
    if not core.any():
        return None
    inner = tuple(slice(margin, -margin) for margin in reach)
    distance = ndimage.distance_transform_edt(~core, sampling=size)[inner]
    found = (distance <= RADIUS) & empty[inner]
    narrow = _deviation(means, [EMPTY_WINDOWS[1] / length for length in size])
    found |= (distance <= RADIUS + REACH) & (narrow < EMPTY * _typical(narrow))
    found = ndimage.binary_propagation((distance <= RADIUS) & empty[inner], mask=found)
    if not found.any() or found.all():
        return None
    full = found.repeat(cell[0], 0).repeat(cell[1], 1)
    return np.pad(full, [(0, n - m) for n, m in zip(section.shape, full.shape, strict=True)], mode="edge")


def _cell_means(section: np.ndarray, cell: list[int]) -> np.ndarray:
    """Mean of each cell, less the mean of all."""
    rows, columns = (size // side for size, side in zip(section.shape, cell, strict=True))
    # Rows first: adding whole lines is four times as fast.
    sums = section.reshape(rows, cell[0], -1).sum(1, dtype=np.float32)
    means = sums.reshape(rows, columns, cell[1]).sum(2) / (cell[0] * cell[1])
    return np.asarray(means - means.mean())


def _deviation(means: np.ndarray, width: list[float]) -> np.ndarray:
    """Standard deviation under a Gaussian around each cell."""
    local = ndimage.gaussian_filter(means, width)
    return np.asarray(np.sqrt(np.maximum(ndimage.gaussian_filter(means * means, width) - local * local, 0)))


def _typical(deviations: np.ndarray) -> float:
    """Deviation of tissue, also if most places are empty: the mean weighted by the variance."""
    squares = deviations * deviations
    return float((squares * deviations).sum() / max(float(squares.sum()), 1e-12))


def find_hot_pixels(section: np.ndarray) -> np.ndarray | None:
    """Find isolated pixels that lie beyond the range of the others by more than this range.

    Returns
    -------
    ndarray or None
        bool (rows, columns); at most three in a 3×3 neighbourhood. None if there are none.
    """
    low, high = (float(value) for value in np.percentile(section[::8, ::8], (1, 99)))
    least, greatest = 2 * low - high, 2 * high - low
    if low == high or (section.min() >= least and section.max() <= greatest):
        return None
    hot = (section < least) | (section > greatest)
    counts = _over_three(_over_three(hot.view(np.uint8), np.add, 0), np.add, 1)
    hot &= counts <= 3
    return hot if hot.any() else None
