"""Normalise the grey values of a section for a network, and correct strong shading."""

import numpy as np
import torch
import torch.nn.functional as F

BLOCK = 2**24
"""Pixels that are squared at once."""
GRID = 24
"""Cells along each side of a section, whose means show its shading."""
SKIP = 4
"""One row in so many decides whether there is shading."""
STRONG = ((0.35, 0.5), (0.3, 0.4))
"""Where the correction of shading begins, and where it is complete: the deviation of the fitted surface over that of
the grey values around it, and the share of the cells' variance that the surface explains; the lesser one decides.
Unshaded sections of Lucchi, VNC III and CDeep3M have at most 0.27 and 0.23; grey values times 0.4 to 1.2 along a
section, or a vignette of as much, at least 0.48 and 0.36. On Lucchi shaded so, F1 rises from 0.223 to 0.923."""
LEAST_VARIANCE = 0.25
"""Share of the mean variance below which no local variance counts, so that flat areas do not become noise."""


def normalise_section(section: np.ndarray, kind: str) -> np.ndarray:
    """Bring one section to what the network wants, float32; see `Backbone.normalisation`.

    Strong shading is corrected first. A constant section becomes zeros.
    """
    values = correct_shading(section.astype(np.float32))
    if kind == "minmax":
        low, high = float(values.min()), float(values.max())
        values -= low
        values /= max(high - low, 1e-6)
        return values
    values -= values.mean()
    values /= max(float(np.sqrt(np.float32(mean_square(values)))), 1e-6)
    return values


def mean_square(values: np.ndarray) -> float:
    """Mean of the squared values of (rows, columns), without an array of their size."""
    step = max(1, BLOCK // values.shape[1])
    blocks = [values[start : start + step] for start in range(0, len(values), step)]
    return sum(float(np.square(block).mean()) * len(block) for block in blocks) / len(values)


def correct_shading(values: np.ndarray) -> np.ndarray:
    """Remove strong shading: a smooth change of the mean and the deviation of the grey values across a section.

    The fitted surface is of second degree, so it cannot follow a nucleus or a patch of tissue. Without strong shading
    the values stay as they are, to the bit.

    Parameters
    ----------
    values : ndarray, shape (rows, columns), float32
        With tissue in place of padding.
    """
    if min(values.shape) < GRID * SKIP:
        return values
    sample = torch.from_numpy(values[::SKIP].copy())[None, None]
    middle = sample.mean()
    sample -= middle
    cells = _cell_means(sample)
    surface = fit_quadratic(cells)
    strength = _strength(cells, surface, float(sample.square_().mean()))
    if strength == 0:
        return values
    image = torch.from_numpy(values)[None, None]
    flat = image - middle - _to_pixels(surface, values.shape)
    squares = _cell_means(flat.square())
    variance = np.maximum(fit_quadratic(squares), LEAST_VARIANCE * squares.mean())
    flat = flat * (_to_pixels(variance, values.shape) / squares.mean()).rsqrt() + middle
    return np.asarray(((1 - strength) * image + strength * flat)[0, 0].numpy())


def _strength(cells: np.ndarray, surface: np.ndarray, mean_square: float) -> float:
    """How much of the shading to correct, 0 to 1; see `STRONG`."""
    total = float(np.square(cells - cells.mean()).sum())
    variance = mean_square - float(surface.var())
    if total <= 0 or variance <= 0:
        return 0.0
    measured = (
        float(surface.std()) / variance**0.5,
        1 - float(np.square(cells - surface).sum()) / total,
    )
    ramps = ((value - begin) / (end - begin) for value, (begin, end) in zip(measured, STRONG, strict=True))
    return float(min(1.0, max(0.0, min(ramps))))


def _cell_means(image: torch.Tensor) -> np.ndarray:
    """Means of (1, 1, rows, columns) in `GRID` × `GRID` cells, float64."""
    return np.asarray(F.adaptive_avg_pool2d(image, (GRID, GRID))[0, 0].numpy().astype(np.float64))


def fit_quadratic(cells: np.ndarray) -> np.ndarray:
    """Return, for each cell, the polynomial of second degree that fits all cells best."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in cells.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), y, x, y * y, x * y, x * x], -1).reshape(cells.size, -1)
    coefficients = np.linalg.lstsq(terms, cells.ravel(), rcond=None)[0]
    return np.asarray((terms @ coefficients).reshape(cells.shape))


def _to_pixels(cells: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """Interpolate a surface on cells to the pixels of a section."""
    surface = torch.from_numpy(cells.astype(np.float32))[None, None]
    return F.interpolate(surface, shape, mode="bilinear", align_corners=False)
