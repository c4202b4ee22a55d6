"""Where painting a few labels would help most: rectangles of typical tissue in which the network is least certain."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mitoda.data.filled import TissueMap
from mitoda.data.painted import PaintedLabels, Rectangle
from mitoda.errors import InputError
from mitoda.inference.settings import SUGGESTED_SIDE_NM
from mitoda.inference.streaming import predict_section
from mitoda.models.model import Model
from mitoda.volumes import Volume
from mitoda.volumes.voxel_size import known_voxel_size

SECTIONS = 16
"""Sections of the stack that are examined, evenly spaced."""
CANDIDATES = 125
"""Rectangles of a section that are compared, a random choice in large sections: their distances fill memory."""
OUTSIDE = 0.1
"""Largest share of a rectangle that may be padding or empty."""
NEIGHBOURS = 0.1
"""Share of all rectangles whose mean distance in appearance says how typical one is."""


@dataclass(frozen=True)
class Suggestion(Rectangle):
    """A place to paint, and the network's uncertainty there."""

    uncertainty: float
    """Mean of 1 − |2 p − 1| over its pixels, p the probability of mitochondrion: 0 certain, 1 undecided."""


def suggest_rectangles(
    volume: Volume,
    model: Model,
    count: int = 4,
    *,
    side_nm: float = SUGGESTED_SIDE_NM,
    painted: PaintedLabels | None = None,
) -> list[Suggestion]:
    """Choose rectangles to paint, the most useful first.

    Candidates are ranked by how uncertain the network is in them and by how typical they look for the stack (mean,
    contrast and fine texture). Candidates that look like one already chosen, or overlap it or existing paint, are
    passed over.

    Parameters
    ----------
    volume : Volume
        Its voxel size must be known.
    model : Model
    count : int
        Number of rectangles.
    side_nm : float
        Length of their sides, nanometres.
    painted : PaintedLabels, optional
        Paint that exists already.

    Raises
    ------
    InputError
        If `count` or `side_nm` is not positive or the voxel size is unknown.
    """
    if count < 1 or not 0 < side_nm < float("inf"):
        raise InputError(f"count and side must be positive; got {count} and {side_nm:g} nm")
    voxel_size = known_voxel_size(volume)
    sides = tuple(
        min(size, max(16, round(side_nm / pixel)))
        for size, pixel in zip(volume.shape[1:], voxel_size[1:], strict=True)
    )
    tissue = TissueMap(volume)
    candidates: list[Suggestion] = []
    appearance: list[np.ndarray] = []
    for section in np.unique(np.linspace(0, volume.shape[0] - 1, SECTIONS).round().astype(int)):
        found, features = _examine(volume, model, int(section), (sides[0], sides[1]), tissue, painted)
        candidates += found
        appearance += features
    if not candidates:
        raise InputError(f"{volume.name} has no unpainted tissue of {side_nm:g} × {side_nm:g} nm")
    return _choose(candidates, np.array(appearance), count)


def _examine(
    volume: Volume,
    model: Model,
    section: int,
    sides: tuple[int, int],
    tissue: TissueMap,
    painted: PaintedLabels | None,
) -> tuple[list[Suggestion], list[np.ndarray]]:
    """Return the rectangles of a section and how each looks: mean, contrast, fine texture."""
    grey = volume.read(section).astype(np.float32)
    probability = predict_section(volume, model, section)
    uncertainty = 1 - np.abs(2 * probability - 1)
    fine = np.abs(grey - ndimage.gaussian_filter(grey, 20 / known_voxel_size(volume)[1]))
    taken = None if painted is None else painted.read(section) != 0
    outside = tissue.outside(section)
    corners = [
        (row, column)
        for row in _starts(grey.shape[0], sides[0])
        for column in _starts(grey.shape[1], sides[1])
    ]
    found, features = [], []
    for index in np.random.default_rng(section).permutation(len(corners)):
        row, column = corners[index]
        place = slice(row, row + sides[0]), slice(column, column + sides[1])
        part = grey[place]
        is_outside = part.min() == part.max() or (outside is not None and outside[place].mean() > OUTSIDE)
        if is_outside or (taken is not None and taken[place].any()):
            continue
        found.append(Suggestion(section, *place, float(uncertainty[place].mean())))
        features.append(np.array([part.mean(), part.std(), fine[place].mean()]))
        if len(found) == CANDIDATES:
            break
    return found, features


def _starts(size: int, side: int) -> list[int]:
    """First pixels of rectangles that overlap by about half and cover the section."""
    steps = max(1, -(-2 * (size - side) // side))
    return [int(start) for start in np.unique(np.linspace(0, size - side, steps + 1).round())]


def _choose(candidates: list[Suggestion], appearance: np.ndarray, count: int) -> list[Suggestion]:
    spread = appearance.std(0)
    looks = (appearance - appearance.mean(0)) / np.where(spread > 0, spread, 1)
    distances = np.linalg.norm(looks[:, None] - looks[None], axis=2)
    nearest = max(1, round(NEIGHBOURS * len(candidates)))
    isolation = np.sort(distances, 1)[:, 1 : nearest + 1].mean(1) if len(candidates) > 1 else np.zeros(1)
    uncertain = np.array([one.uncertainty for one in candidates])
    score = _rank(uncertain) - _rank(isolation)
    chosen: list[int] = []
    while len(chosen) < min(count, len(candidates)):
        apart = distances[:, chosen].min(1) if chosen else np.ones(len(candidates))
        value = score + 0.5 * np.minimum(apart, 1)
        for index, one in enumerate(candidates):
            if any(one.overlaps(candidates[other]) for other in chosen):
                value[index] = -np.inf
        best = int(value.argmax())
        if not np.isfinite(value[best]):
            break
        chosen.append(best)
    return [candidates[index] for index in chosen]


def _rank(values: np.ndarray) -> np.ndarray:
    """Rank of each value, 0 to 1."""
    return values.argsort().argsort() / max(len(values) - 1, 1)
