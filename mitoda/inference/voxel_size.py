"""The voxel size of a stack whose metadata do not say it, from its images and a network; no label is read.

Two unknowns, found one after the other. How thick a section is in its own pixels: neighbouring sections are as alike as
one section is with itself shifted by that many pixels (Sporring et al. 2014, "Estimating the thickness of ultra thin
sections for electron microscopy by image statistics", ISBI). And how large a pixel is: the network sees each section
from both sides, and its two answers agree best at the scale it learnt at. On a volume of another animal the agreement
peaked where the F1 score did.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from mitoda.data.geometry import Geometry
from mitoda.data.pairs import UnlabelledPairs
from mitoda.errors import InputError
from mitoda.inference.self_consistency import EMPTY, FLOOD, selection_scores
from mitoda.models.backbones import backbone_named
from mitoda.models.pair_networks import PairNetwork
from mitoda.models.weights import WeightsInfo
from mitoda.volumes import Volume, VoxelSize

ZOOMS = (0.4, 0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.2)
"""Pixel sizes that are tried, as multiples of the one the network works at."""
ISOTROPIC = 2.0
"""Sections estimated at fewer pixels than this are taken as thick as a pixel is large: milling and noise make sections
of such stacks less alike than shifts of one (Lucchi, 5 × 5 × 5 nm: 1.45 and 1.53; VNC III, truly 10.9: 9.3)."""
LARGEST_RATIO = 20
"""Thickest section that is looked for, in pixels."""
SAMPLES = 6
"""Places of the stack that are looked at."""
SIDE = 1024
"""Largest side, in pixels, of what is compared of two sections."""


@dataclass(frozen=True)
class ScaleTried:
    """One pixel size, and what the network says at it."""

    pixel: float
    """Nanometres."""
    agreement: float | None
    """Dice of its two answers to a section; None where it finds nothing."""
    foreground: float
    """Share of pixels taken for mitochondrion."""


@dataclass(frozen=True)
class ScaleFound:
    """The voxel size taken, and all that was tried."""

    voxel_size: VoxelSize
    tried: list[ScaleTried]

    @property
    def sentence(self) -> str:
        """What was taken, why, and how to overrule it."""
        z, y, x = self.voxel_size
        seen = ", ".join(
            f"{one.pixel:.3g} nm {'–' if one.agreement is None else f'{one.agreement:.2f}'}"
            for one in self.tried
        )
        return (
            f"the metadata have no voxel size; searched without labels and taken: {z:.3g} {y:.3g} {x:.3g} nm "
            f"(a section's two answers agree by Dice at pixels of {seen}). It is a guess: if you know the size, give "
            "--voxel-size Z Y X"
        )


def search_voxel_size(
    network: PairNetwork, info: WeightsInfo, volume: Volume, device: torch.device, *, bfloat16: bool = False
) -> ScaleFound:
    """Find the voxel size at which a network agrees best with itself.

    Parameters
    ----------
    network : PairNetwork
        Ready to predict, on `device`.
    info : WeightsInfo
        Of its weights.
    volume : Volume
        Its own voxel size is not looked at.

    Raises
    ------
    InputError
        If the stack has a single section, the network sees no context, or it finds nothing at any scale.
    """
    refuse = f"the voxel size of {volume.name} is not in its metadata and could not be found from its images"
    advice = "give it in nanometres: --voxel-size Z Y X (section thickness, then pixel size along rows and columns)"
    if volume.shape[0] < 3 or not network.joined:
        reason = "it takes three sections" if network.joined else "the network sees one section at a time"
        raise InputError(f"{refuse} ({reason}); {advice}")
    ratio = section_thickness(volume)
    geometry = Geometry(info.pixel, info.spacing)
    tried: list[ScaleTried] = []
    for zoom in ZOOMS:
        size = (zoom * info.pixel[0] * ratio, zoom * info.pixel[0], zoom * info.pixel[1])
        # A section with a neighbour on both sides is what the two answers are about.
        stride = min(geometry.stride(size, volume.shape[0]), (volume.shape[0] - 1) // 2)
        scores = selection_scores(
            network,
            backbone_named(info.backbone),
            UnlabelledPairs(volume, stride, geometry.scale(size)),
            device,
            samples=SAMPLES,
            bfloat16=bfloat16,
        )
        share = scores["foreground"] or 0.0
        plausible = EMPTY <= share <= FLOOD
        tried.append(ScaleTried(size[1], scores["two_context_dice"] if plausible else None, share))
    agreements = [one.agreement for one in tried]
    if all(agreement is None for agreement in agreements):
        raise InputError(f"{refuse} (the network finds no mitochondria at any scale); {advice}")
    best = middle_of_peak([-1.0 if agreement is None else agreement for agreement in agreements])
    pixel = (best * info.pixel[0], best * info.pixel[1])
    return ScaleFound((ratio * pixel[0], *pixel), tried)


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

    The shift within a section after which it is as unlike itself as its neighbour is, by the standard deviation of
    the difference. Blurred first, since noise differs between sections and not between shifts of one.

    Parameters
    ----------
    volume : Volume
        Of two sections or more.
    samples : int
        Neighbours to compare, evenly spaced.
    """
    lags = np.arange(LARGEST_RATIO + 1)
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
    return (values - values.mean()) / max(float(values.std()), 1e-6)


def _unlike(values: np.ndarray, lag: int) -> float:
    """Standard deviation of the difference of a section and itself shifted, mean of both directions."""
    if lag == 0:
        return 0.0
    rows = float((values[lag:] - values[:-lag]).std())
    return (rows + float((values[:, lag:] - values[:, :-lag]).std())) / 2
