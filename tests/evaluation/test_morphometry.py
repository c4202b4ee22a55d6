"""Sizes and shapes of bodies whose sizes are known, at isotropic and anisotropic spacings."""

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import ellipeinc, ellipkinc

from mitoda.evaluation import morphometry

SPACINGS = [(5.0, 5.0, 5.0), (30.0, 8.0, 8.0), (50.0, 5.0, 5.0)]
UNCUT = ((False, False),) * 3


def grid(spacing, reach):
    """Coordinates of the voxels of a box around the origin, off the voxels' centres."""
    axes = [np.arange(-reach - 2 * side, reach + 2 * side, side) + 0.3 * side for side in spacing]
    return np.meshgrid(*axes, indexing="ij")


def ball(spacing, radius):
    """Voxels of a ball."""
    z, y, x = grid(spacing, radius)
    return z**2 + y**2 + x**2 <= radius**2


def rod(spacing, radius, length, direction):
    """Voxels of a cylinder around a direction."""
    z, y, x = grid(spacing, length / 2 + radius)
    along = z * direction[0] + y * direction[1] + x * direction[2]
    return (abs(along) <= length / 2) & (z**2 + y**2 + x**2 - along**2 <= radius**2)


def ellipsoid_surface(a, b, c):
    """Surface of an ellipsoid with semi-axes a > b > c, in elliptic integrals (DLMF 19.33)."""
    phi = math.acos(c / a)
    m = a**2 * (b**2 - c**2) / (b**2 * (a**2 - c**2))
    integrals = ellipeinc(phi, m) * math.sin(phi) ** 2 + ellipkinc(phi, m) * math.cos(phi) ** 2
    return 2 * math.pi * c**2 + 2 * math.pi * a * b / math.sin(phi) * integrals


@pytest.mark.parametrize("spacing", SPACINGS)
def test_surfaces_of_balls_ellipsoids_and_cylinders(spacing):
    """Within 2 % in voxels of 5 nm, 4 % in sections of 30 nm, 8 % in sections of 50 nm."""
    allowed = {5.0: 0.02, 30.0: 0.04, 50.0: 0.08}[spacing[0]]
    z, y, x = grid(spacing, 300)
    ellipsoid = (z / 130) ** 2 + (y / 180) ** 2 + (x / 300) ** 2 <= 1
    for mask, expected in (
        (ball(spacing, 200), 4 * math.pi * 200**2),
        (ellipsoid, ellipsoid_surface(300, 180, 130)),
        (rod(spacing, 120, 600, (0.6, 0.64, 0.48)), 2 * math.pi * 120 * (600 + 120)),
    ):
        assert morphometry.surface_area(mask, spacing, UNCUT) == pytest.approx(expected, rel=allowed)


def test_surfaces_in_blocks_are_those_of_the_whole(monkeypatch):
    """Blocks of eight sections give the same area, and the same skeleton, as all at once."""
    mask = rod((5.0, 5.0, 5.0), 60, 300, (0.6, 0.64, 0.48))
    whole = morphometry.surface_area(mask, (5, 5, 5)), morphometry.skeleton(mask, (5, 5, 5), 20)
    monkeypatch.setattr(morphometry, "BLOCK", 1)
    blocks = morphometry.surface_area(mask, (5, 5, 5)), morphometry.skeleton(mask, (5, 5, 5), 20)
    assert blocks[0] == pytest.approx(whole[0], rel=1e-6)
    assert blocks[1] == pytest.approx(whole[1])


def test_a_border_that_cuts_has_no_surface():
    """Half a ball, cut by the first section, has half of the surface."""
    mask = ball((5.0, 5.0, 5.0), 150)
    middle = len(mask) // 2
    half = morphometry.surface_area(mask[middle:], (5, 5, 5), ((True, False), (False, False), (False, False)))
    assert half == pytest.approx(2 * math.pi * 150**2, rel=0.04)


def test_bodies_smaller_than_the_smoothing_have_a_surface():
    """A single voxel: the octahedron of marching cubes, with corners half a voxel away."""
    mask = np.ones((1, 1, 1), bool)
    assert morphometry.surface_area(mask, (2.0, 2.0, 2.0)) == pytest.approx(4 * math.sqrt(3))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_axes_of_an_ellipsoid(spacing):
    """Lengths within 3 %, and the direction of the longest; elongation is the longest by the second."""
    z, y, x = grid(spacing, 300)
    along, across = (y + x) / math.sqrt(2), (y - x) / math.sqrt(2)
    mask = (z / 130) ** 2 + (across / 180) ** 2 + (along / 290) ** 2 <= 1
    lengths, direction = morphometry.principal_axes(mask, spacing)
    assert lengths == pytest.approx([580, 360, 260], rel=0.03)
    assert direction == pytest.approx([0, math.sqrt(0.5), math.sqrt(0.5)], abs=0.01)
    assert morphometry.elongation(lengths) == pytest.approx(580 / 360, rel=0.03)


def test_shape_factors_of_a_ball():
    """Sphericity is 1, and the complexity index 9 / (4 π), whatever the radius."""
    for radius in (0.1, 3.0):
        volume, surface = 4 / 3 * math.pi * radius**3, 4 * math.pi * radius**2
        assert morphometry.sphericity(volume, surface) == pytest.approx(1)
        assert morphometry.complexity_index(volume, surface) == pytest.approx(9 / (4 * math.pi))
        assert morphometry.equivalent_diameter(volume) == pytest.approx(2 * radius)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_skeleton_of_a_rod(spacing):
    """It ends about one radius before both ends of the rod, within 15 %, and does not branch."""
    length, branch_points = morphometry.skeleton(rod(spacing, 80, 900, (0.6, 0.64, 0.48)), spacing, 20)
    assert length == pytest.approx(900 - 2 * 80, rel=0.15)
    assert branch_points == 0


@pytest.mark.parametrize("spacing", SPACINGS)
def test_skeleton_of_three_arms(spacing):
    """Three arms that meet have one branch point, and the length of all arms within 15 %; roughness adds none."""
    z, y, x = grid(spacing, 500)
    mask = np.zeros(z.shape, bool)
    for angle in (0, 2.1, 4.2):
        arm = np.array([0.3, math.cos(angle), math.sin(angle)]) / math.hypot(0.3, 1)
        along = np.clip(z * arm[0] + y * arm[1] + x * arm[2], 0, 400)
        mask |= (z - along * arm[0]) ** 2 + (y - along * arm[1]) ** 2 + (x - along * arm[2]) ** 2 <= 70**2
    length, branch_points = morphometry.skeleton(mask, spacing, 20)
    assert branch_points == 1
    assert length == pytest.approx(3 * 400, rel=0.15)


def test_skeleton_of_a_ball_is_a_point():
    """Of length 0, or shorter than a fifth of its diameter."""
    length, branch_points = morphometry.skeleton(ball((5.0, 5.0, 5.0), 150), (5, 5, 5), 20)
    assert length < 60
    assert branch_points == 0


@pytest.mark.parametrize("spacing", [(5.0, 5.0), (10.0, 5.0)])
def test_outlines_of_discs(spacing):
    """Perimeter within 2 %, circularity within 4 %, Feret diameter within one pixel at each end."""
    rows, columns = np.meshgrid(*(np.arange(-160, 160, side) + 0.3 * side for side in spacing), indexing="ij")
    mask = rows**2 + columns**2 <= 140**2
    outline = morphometry.perimeter(mask, spacing)
    assert outline == pytest.approx(2 * math.pi * 140, rel=0.02)
    area = np.count_nonzero(mask) * math.prod(spacing)
    assert morphometry.circularity(area, outline) == pytest.approx(1, rel=0.04)
    assert morphometry.feret_diameter(mask, spacing) == pytest.approx(280, abs=2 * max(spacing))
    assert morphometry.equivalent_diameter(area, 2) == pytest.approx(280, rel=0.01)


def test_feret_diameter_of_a_bar_is_its_diagonal():
    """Three by four pixels have a diagonal of five; a single pixel that of its square."""
    assert morphometry.feret_diameter(np.ones((3, 4), bool), (1, 1)) == pytest.approx(5)
    assert morphometry.feret_diameter(np.ones((1, 1), bool), (3, 4)) == pytest.approx(5)


def test_smoothing_is_a_gaussian_of_the_stated_width():
    """A block of the smoothed mask equals scipy's filter of the padded mask."""
    mask = ball((20.0, 5.0, 5.0), 60)
    sigma = morphometry.sigmas((20.0, 5.0, 5.0))
    assert sigma == pytest.approx((0.8, 1.2, 1.2))
    (block,) = morphometry.smooth_blocks(mask, (20.0, 5.0, 5.0), UNCUT, smooth=True)
    reach = [int(3 * one + 0.5) + 1 for one in sigma]
    padded = np.pad(mask.astype(np.float32), [(r, r) for r in reach])
    np.testing.assert_allclose(block, ndimage.gaussian_filter(padded, sigma, truncate=3), atol=1e-6)
