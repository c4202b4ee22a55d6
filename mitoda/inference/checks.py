"""Whether a stack and its mask look as they should: what a person should know before trusting them."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from mitoda.data.geometry import Geometry
from mitoda.volumes import Volume, VoxelSize


def contrast_looks_inverted(section: np.ndarray, pixel: float) -> bool:
    """Tell whether thin structures are bright on dark, where electron micrographs of stained tissue have them dark.

    Looks at the skewness of a difference of Gaussians (σ = 10 and 40 nm): membranes and cristae, dark and thin, give it
    a long negative tail. Measured: VNC III −0.31 to −0.25, Lucchi −0.21 to −0.12; inverted, with the other sign.

    Parameters
    ----------
    section : ndarray, shape (rows, columns)
    pixel : float
        Its size in nanometres.
    """
    values = section.astype(np.float32)
    thin = ndimage.gaussian_filter(values, 10 / pixel) - ndimage.gaussian_filter(values, 40 / pixel)
    thin -= thin.mean()
    deviation = float(thin.std())
    return deviation > 0 and float((thin**3).mean()) / deviation**3 > 0.05


def mask_warnings(
    volume: Volume, voxel_size: VoxelSize, geometry: Geometry, found: float, left: float
) -> Iterator[str]:
    """What a person should know about the mask before trusting it; shares before and after dropping the small."""
    sections = volume.shape[0]
    section = volume.read(sections // 2)
    if section.min() == section.max():
        yield f"section {sections // 2} is constant (all its pixels are {section.flat[0]}): there is nothing to see"
    elif contrast_looks_inverted(section, voxel_size[1]):
        yield "the contrast looks inverted (thin structures bright on dark); if membranes are bright, give --invert"
    if found == 0:
        yield (
            "the mask is empty: no pixel reached the threshold. Check the voxel size (--voxel-size) and the contrast "
            "(--invert), or adapt to this volume with 'mitoda adapt --target'"
        )
    elif left == 0:
        yield "the mask is empty: every component is smaller than --min-size"
    elif left > 0.5:
        yield f"{left:.0%} of the volume is foreground, more than any tissue has; check --voxel-size and --invert"
    apart = geometry.stride(voxel_size, sections) * voxel_size[0]
    if sections == 1:
        yield "a single section is paired with itself, so no neighbour helps to predict it"
    elif not 0.5 <= apart / geometry.spacing <= 2:
        yield (
            f"pairs are {apart:g} nm apart here, and were {geometry.spacing:g} nm when the network learnt; "
            "its masks may be worse than they could be"
        )
