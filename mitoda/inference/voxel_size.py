"""The voxel size of a stack without metadata, estimated from its images and a network; no label is read.

First the thickness of a section in pixels: neighbouring sections are as alike as a section is with itself shifted by
that many pixels (Sporring et al. 2014, "Estimating the thickness of ultra thin sections for electron microscopy by
image statistics", ISBI). Then the pixel size: the network predicts each section twice, and its two predictions agree
best at the scale it was trained at. On a volume of another animal the agreement peaked where the F1 score did.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mitoda.data.filled import FilledVolume, TissueMap
from mitoda.data.pairs import UnlabelledPairs
from mitoda.errors import InputError
from mitoda.inference.self_consistency import EMPTY, FLOOD, consistency_scores
from mitoda.models.model import Model
from mitoda.volumes import Volume, VoxelSize
from mitoda.volumes.volume import Lengths, stated_lengths

ZOOMS = (0.4, 0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.2)
"""Pixel sizes that are tried, as multiples of the one the network works at."""
ISOTROPIC = 2.0
"""Thinner sections, in pixels, are taken as one pixel thick: milling and noise make the sections of such stacks less
alike than shifts (estimates for Lucchi, truly 1: 1.45 and 1.53; for VNC III, truly 10.9: 9.3)."""
LARGEST_RATIO = 20
"""Thickest section considered, in pixels."""
SAMPLES = 6
"""Samples of the stack that are compared."""
SIDE = 1024
"""Largest side of what is compared of two sections, in pixels."""


@dataclass(frozen=True)
class VoxelSizeFound:
    """The voxel size found from the images, and the pixel sizes tried."""

    voxel_size: VoxelSize
    tried: list[tuple[float, float | None]]
    """Pixel size in nanometres, and the Dice of the network's two predictions of a section; None where they are empty
    or foreground everywhere. Empty if the metadata have the pixel size."""
    stated: Lengths = (None, None, None)
    """Lengths that the metadata have; they are kept."""

    @property
    def sentence(self) -> str:
        """The voxel size, how it was found, and how to give it instead."""
        z, y, x = self.voxel_size
        advice = "Check the estimate; if you know the voxel size, give --voxel-size Z Y X"
        if not self.tried:
            return (
                f"the metadata have pixels of {y:.3g} × {x:.3g} nm, but no section thickness; estimated from the "
                f"images: {z:.3g} nm. {advice}"
            )
        missing = "voxel size" if self.stated[0] is None else "pixel size"
        tried = ", ".join(
            f"{pixel:.3g} nm {'–' if dice is None else f'{dice:.2f}'}" for pixel, dice in self.tried
        )
        return (
            f"the metadata have no {missing}; estimated from the images: {z:.3g} {y:.3g} {x:.3g} nm "
            f"(agreement of a section's two predictions by pixel size: {tried}). {advice}"
        )


def search_voxel_size(volume: Volume, model: Model) -> VoxelSizeFound:
    """Estimate the lengths that the metadata lack; known lengths are kept.

    Without a pixel size, it is the one at which a network agrees best with itself. Where the metadata have the pixel
    size, only the section thickness is estimated, without the network.

    Raises
    ------
    InputError
        If the stack has too few sections, the network sees no context, or it finds nothing at any scale.
    """
    refuse = (
        f"the voxel size of {volume.name} is not in its metadata and could not be estimated from its images"
    )
    advice = "give it in nanometres: --voxel-size Z Y X (section thickness, then pixel size along rows and columns)"
    stated = stated_lengths(volume)
    thickness, row, column = stated
    if row is not None and column is not None:
        if volume.shape[0] < 2:
            raise InputError(f"{refuse} (a single section does not show its thickness); {advice}")
        ratio = section_thickness(FilledVolume(volume, TissueMap(volume, (row, column))))
        return VoxelSizeFound((ratio * (row + column) / 2, row, column), [], stated)
    if volume.shape[0] < 3 or not model.network.joined:
        reason = (
            "it takes three sections" if model.network.joined else "the network sees one section at a time"
        )
        raise InputError(f"{refuse} ({reason}); {advice}")
    pixel, geometry = model.geometry.pixel, model.geometry
    filled = FilledVolume(volume, TissueMap(volume, pixel))
    ratio = section_thickness(filled) if thickness is None else 0.0
    tried: list[tuple[float, float | None]] = []
    for zoom in ZOOMS:
        size = (thickness or zoom * pixel[0] * ratio, zoom * pixel[0], zoom * pixel[1])
        # The two predictions are those of a section with a neighbour on both sides.
        stride = min(geometry.stride(size, volume.shape[0]), (volume.shape[0] - 1) // 2)
        pairs = UnlabelledPairs(filled, stride, geometry.scale(size))
        scores = consistency_scores(model, pairs, samples=SAMPLES)
        plausible = EMPTY <= (scores["foreground"] or 0.0) <= FLOOD
        tried.append((size[1], scores["two_context_dice"] if plausible else None))
    if all(agreement is None for _, agreement in tried):
        raise InputError(f"{refuse} (the network finds no mitochondria at any scale); {advice}")
    best = middle_of_peak([-1.0 if agreement is None else agreement for _, agreement in tried])
    size = (thickness or ratio * best * pixel[0], best * pixel[0], best * pixel[1])
    return VoxelSizeFound(size, tried, stated)


def middle_of_peak(agreements: Sequence[float], tolerance: float = 0.02) -> float:
    """Take the geometric mean of the zooms around the best one that agree all but as well: the peak is often flat.

    Examples
    --------
    >>> middle_of_peak([0, 0, 0, 0.95, 0.96, 0.94, 0.7, 0, 0, 0])
    1.0
    """
    top = int(np.argmax(agreements))
    near = np.asarray(agreements) >= agreements[top] - tolerance
    first = last = top
    while first > 0 and near[first - 1]:
        first -= 1
    while last < len(near) - 1 and near[last + 1]:
        last += 1
    return float(np.exp(np.mean(np.log(ZOOMS[first : last + 1]))))


def section_thickness(volume: Volume, samples: int = SAMPLES) -> float:
    """Estimate how thick a section is, in pixels: 1 to `LARGEST_RATIO`.

    It is the shift that changes a section as much as going on to its neighbour does, by the standard deviation of the
    difference. Sections are blurred first, because noise differs between sections but not between shifts. `samples`
    pairs of neighbours are compared.
    """
    lags = np.arange(min(LARGEST_RATIO, min(volume.shape[1:]) // 2) + 1)
    across, along = [], []
    for k in np.unique(np.linspace(0, volume.shape[0] - 2, samples).round().astype(int)):
        one, other = (_prepared(volume, int(k) + step) for step in (0, 1))
        across.append(float((one - other).std()))
        along.append([_unlike(one, int(lag)) for lag in lags])
    found = float(np.interp(np.median(across), np.median(along, axis=0), lags))
    return found if found >= ISOTROPIC else 1.0


def _prepared(volume: Volume, section: int) -> np.ndarray:
    """The middle of a section, blurred over its noise, with mean 0 and variance 1."""
    rows, columns = (slice(max(0, (size - SIDE) // 2), (size + SIDE) // 2) for size in volume.shape[1:])
    values = ndimage.gaussian_filter(volume.read(section, rows, columns).astype(np.float32), 2.0)
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-6))


def _unlike(values: np.ndarray, lag: int) -> float:
    """Standard deviation of the difference of a section and itself shifted, mean of both directions."""
    if lag == 0:
        return 0.0
    rows = float((values[lag:] - values[:-lag]).std())
    return (rows + float((values[:, lag:] - values[:, :-lag]).std())) / 2
