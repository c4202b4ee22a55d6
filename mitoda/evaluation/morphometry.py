"""Size and shape of one mitochondrion: a mask and the voxel spacing in, a number out; lengths in the spacing's unit.

Surfaces and perimeters are those of a smoothed mask, because a staircase of voxels has more surface than what it
stands for: marching cubes on voxels that are not smoothed find 8 % too much on a sphere. The standard deviation of the
Gaussian is `SMOOTHING` voxels along each axis, and at least `SMOOTHING_OF_COARSEST` of the longest side of a voxel.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import ConvexHull, cKDTree
from scipy.spatial.distance import pdist

SMOOTHING, SMOOTHING_OF_COARSEST = 0.8, 0.3
"""Chosen on spheres, ellipsoids and cylinders of known area; mitoda/evaluation/README.md has the errors."""
REACH = 3.0
"""Standard deviations at which the Gaussian ends."""
BLOCK = 1 << 24
"""Voxels smoothed at once."""


def equivalent_diameter(size: float, dimensions: int = 3) -> float:
    """Diameter of the sphere of this volume, (6 V / π)^⅓, or of the circle of this area, 2 √(A / π).

    Examples
    --------
    >>> round(equivalent_diameter(math.pi / 6), 6), round(equivalent_diameter(math.pi / 4, 2), 6)
    (1.0, 1.0)
    """
    return (6 * size / math.pi) ** (1 / 3) if dimensions == 3 else 2 * math.sqrt(size / math.pi)


def sphericity(volume: float, surface: float) -> float:
    """Surface of the sphere of this volume, divided by the surface: π^⅓ (6 V)^⅔ / S; 1 of a sphere, else less.

    Wadell 1935, doi:10.1086/624298.
    """
    return math.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface if surface else math.nan


def complexity_index(volume: float, surface: float) -> float:
    """Mitochondrial complexity index, S³ / (16 π² V²): 0.72 of a sphere, more of branched and elongated shapes.

    Vincent et al. 2019, doi:10.1016/j.celrep.2019.01.010.
    """
    return float(surface**3 / (16 * math.pi**2 * volume**2))


def circularity(area: float, perimeter: float) -> float:
    """4 π A / P²: 1 of a circle, else less (Cox 1927). NaN without a perimeter."""
    return 4 * math.pi * area / perimeter**2 if perimeter else math.nan


def centroid(mask: np.ndarray) -> np.ndarray:
    """Mean position of the voxels of a mask along each axis, in voxels."""
    profiles = [_projected(mask, axis) for axis in range(mask.ndim)]
    return np.array([profile @ np.arange(len(profile)) / profile.sum() for profile in profiles])


def _projected(mask: np.ndarray, *axes: int) -> np.ndarray:
    """Number of voxels at each place along some axes; unlike a list of voxels, it takes no memory."""
    return np.asarray(mask.sum(tuple(axis for axis in range(mask.ndim) if axis not in axes)))


def principal_axes(mask: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the axes of the ellipsoid (or ellipse) with the same second moments, and the direction of the longest.

    The eigenvalues λ of the covariance of all points of the voxels give lengths of 2 √((n + 2) λ) in n dimensions.

    Returns
    -------
    lengths : ndarray, shape (n,)
        The longest first.
    direction : ndarray, shape (n,)
        Of length 1; its largest element is positive.
    """
    n = mask.ndim
    offsets = [
        (np.arange(size) - middle) * side
        for size, middle, side in zip(mask.shape, centroid(mask), spacing, strict=True)
    ]
    covariance = np.diag(np.square(spacing) / 12)
    for i, j in product(range(n), repeat=2):
        shadow = _projected(mask, i, j)
        moment = shadow @ offsets[i] ** 2 if i == j else offsets[min(i, j)] @ shadow @ offsets[max(i, j)]
        covariance[i, j] += moment / np.count_nonzero(mask)
    values, vectors = np.linalg.eigh(covariance)
    direction = vectors[:, -1]
    leading = direction[np.abs(direction).argmax()]
    return 2 * np.sqrt((n + 2) * values[::-1]), direction * np.sign(leading)


def elongation(lengths: np.ndarray) -> float:
    """Longest by second longest principal axis, as in ITK (Lehmann 2008, hdl:1926/584): 1 of a sphere or a disc."""
    return float(lengths[0] / lengths[1])


def feret_diameter(mask: np.ndarray, spacing: Sequence[float]) -> float:
    """Largest distance between two points of the outline of a 2-D mask, corners of pixels included."""
    rows, columns = np.nonzero(mask & ~ndimage.binary_erosion(mask))
    corners = np.array([(row, column) for row in (-0.5, 0.5) for column in (-0.5, 0.5)])
    points = (np.stack([rows, columns], 1)[:, None] + corners).reshape(-1, 2) * np.asarray(spacing)
    return float(pdist(points[ConvexHull(points).vertices]).max())


def sigmas(spacing: Sequence[float]) -> tuple[float, ...]:
    """Standard deviations of the smoothing, in voxels.

    Examples
    --------
    >>> sigmas((5, 5, 5)), sigmas((50, 5, 5))
    ((0.8, 0.8, 0.8), (0.8, 3.0, 3.0))
    """
    return tuple(max(SMOOTHING, SMOOTHING_OF_COARSEST * max(spacing) / side) for side in spacing)


Sides = Sequence[tuple[bool, bool]]
"""For each axis, whether the border of the stack cuts the mask at its first and at its last plane."""


def smooth_blocks(
    mask: np.ndarray, spacing: Sequence[float], cut: Sides, smooth: bool
) -> Iterator[np.ndarray]:
    """Yield a mask smoothed with room around it, float32, in blocks of sections that share one section.

    Where the stack's border cuts the mask it continues as it ends there.
    """
    sigma = sigmas(spacing) if smooth else (0.0,) * mask.ndim
    reach = [int(REACH * one + 0.5) for one in sigma]
    pads = [
        tuple(0 if is_cut else room + 1 for is_cut in sides) for sides, room in zip(cut, reach, strict=True)
    ]
    padded = np.pad(mask, pads)
    height = max(8, BLOCK // math.prod(padded.shape[1:]))
    for first in range(0, max(len(padded) - 1, 1), height):
        last = min(first + height + 1, len(padded))
        start = max(0, first - reach[0])
        near = padded[start : last + reach[0]].astype(np.float32)
        smoothed = ndimage.gaussian_filter(near, sigma, mode="nearest", truncate=REACH) if smooth else near
        yield smoothed[first - start : last - start]


def surface_area(mask: np.ndarray, spacing: Sequence[float], cut: Sides = ((False, False),) * 3) -> float:
    """Area of the surface of a 3-D mask: marching cubes (Lorensen and Cline 1987, doi:10.1145/37402.37422), smoothed.

    Where the border of the stack cuts it there is no surface. What is so small that smoothing leaves nothing is not
    smoothed.
    """
    return _measured(mask, spacing, cut, _block_area)


def perimeter(mask: np.ndarray, spacing: Sequence[float], cut: Sides = ((False, False),) * 2) -> float:
    """Length of the outline of a 2-D mask: marching squares, smoothed; otherwise as `surface_area`."""
    return _measured(mask, spacing, cut, _block_outline)


def _measured(
    mask: np.ndarray,
    spacing: Sequence[float],
    cut: Sides,
    measure: Callable[[np.ndarray, Sequence[float]], float],
) -> float:
    for smooth in (True, False):
        found = math.fsum(measure(block, spacing) for block in smooth_blocks(mask, spacing, cut, smooth))
        if found:
            return found
    return 0.0


def _block_area(block: np.ndarray, spacing: Sequence[float]) -> float:
    from skimage.measure import marching_cubes, mesh_surface_area

    if min(block.shape) < 2 or not block.min() < 0.5 < block.max():
        return 0.0
    corners, triangles, _, _ = marching_cubes(block, 0.5, spacing=tuple(spacing))
    return float(mesh_surface_area(corners, triangles))


def _block_outline(block: np.ndarray, spacing: Sequence[float]) -> float:
    from skimage.measure import find_contours

    lines = find_contours(block, 0.5) if min(block.shape) > 1 else []
    return math.fsum(float(np.hypot(*(np.diff(line, axis=0) * spacing).T).sum()) for line in lines)


def skeleton(
    mask: np.ndarray, spacing: Sequence[float], grid: float, cut: Sides = ((False, False),) * 3
) -> tuple[float, int]:
    """Length of the middle lines of a 3-D mask, and the number of their branch points.

    The smoothed mask is sampled every `grid` and thinned (Lee et al. 1994, doi:10.1006/cgip.1994.1042). Branches
    shorter than the radius where they leave are roughness of the surface and removed; loops are opened. The line
    ends about one radius before the surface, so that of a sphere has a length of about 0.
    """
    from skimage.morphology import skeletonize

    solid = _resample(mask, spacing, grid, cut)
    points = np.argwhere(skeletonize(solid))
    if len(points) < 2:
        return 0.0, 0
    radius = ndimage.distance_transform_edt(np.pad(solid, 1))[tuple((points + 1).T)]
    pairs = cKDTree(points).query_pairs(1.8, output_type="ndarray")  # all 26 neighbours
    steps = np.linalg.norm(np.diff(points[pairs], axis=1)[:, 0], axis=1)
    graph = csr_array((steps, pairs.T), (len(points), len(points)))
    tree = minimum_spanning_tree(graph).tocoo()
    neighbours: list[dict[int, float]] = [{} for _ in points]
    for one, other, step in zip(tree.row.tolist(), tree.col.tolist(), tree.data.tolist(), strict=True):
        neighbours[one][other] = neighbours[other][one] = step
    _prune(neighbours, radius)
    branching = [node for node, near in enumerate(neighbours) if len(near) > 2]
    inner = sum(other in neighbours[node] for node in branching for other in branching) // 2
    length = grid * sum(sum(near.values()) for near in neighbours) / 2
    return length, len(
        branching
    ) - inner  # points side by side are one: they are a tree, with a link less than points


def _resample(mask: np.ndarray, spacing: Sequence[float], grid: float, cut: Sides) -> np.ndarray:
    """The smoothed mask at points every `grid`: nearest rows and columns, interpolated between sections."""
    blocks: list[np.ndarray] = []
    for block in smooth_blocks(mask, spacing, cut, smooth=True):
        rows, columns = (
            np.rint(np.arange(0, size - 1, grid / side)).astype(int)
            for size, side in zip(block.shape[1:], spacing[1:], strict=True)
        )
        blocks.append(block[1 if blocks else 0 :][:, rows][:, :, columns])
    planes = np.concatenate(blocks)
    depths = np.arange(0, len(planes) - 1 + 1e-9, grid / spacing[0])
    lower = np.minimum(depths.astype(int), max(len(planes) - 2, 0))
    upper = np.minimum(lower + 1, len(planes) - 1)
    share = (depths - lower)[:, None, None]
    return np.asarray(planes[lower] * (1 - share) + planes[upper] * share > 0.5)


def _prune(neighbours: list[dict[int, float]], radius: np.ndarray) -> None:
    """Remove the shortest branch of a tree that is shorter than the radius where it leaves, again and again."""
    while True:
        shortest: tuple[float, list[int]] | None = None
        for leaf, near in enumerate(neighbours):
            if len(near) != 1:
                continue
            branch, length, before, node = [leaf], 0.0, -1, leaf
            while len(neighbours[node]) <= 2:
                ahead = [other for other in neighbours[node] if other != before]
                if not ahead:
                    break  # the other end of a line without branches
                length += neighbours[node][ahead[0]]
                before, node = node, ahead[0]
                branch.append(node)
            is_spur = len(neighbours[node]) > 2 and length < radius[node]
            if is_spur and (shortest is None or length < shortest[0]):
                shortest = length, branch
        if shortest is None:
            return
        for one, other in zip(shortest[1], shortest[1][1:], strict=False):
            del neighbours[one][other], neighbours[other][one]
