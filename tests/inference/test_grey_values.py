"""Normalised sections: strong shading is corrected, everything else stays as it is."""

import numpy as np
import pytest
from scipy import ndimage

from mitoda.inference.grey_values import correct_shading, fit_quadratic, normalise_section

SIDE = 200


@pytest.fixture
def section() -> np.ndarray:
    """Grey values without shading, float32."""
    noise = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    smooth = ndimage.gaussian_filter(noise, 2)
    return (120 + 30 * smooth / smooth.std()).astype(np.float32)


@pytest.mark.parametrize("kind", ["slope", "vignette"])
def test_strong_shading_is_corrected(section, kind):
    """Grey values times 0.4 to 1.2 come back to what they were, up to mean and deviation."""
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    factor = 0.8 + 0.4 * y if kind == "slope" else 1.2 - 0.4 * (y * y + x * x)
    shaded = (section * factor).astype(np.float32)
    corrected = normalise_section(shaded, "standard")
    reference = (section - section.mean()) / section.std()
    assert np.corrcoef(shaded.ravel(), section.ravel())[0, 1] < 0.9
    assert np.corrcoef(corrected.ravel(), reference.ravel())[0, 1] > 0.98
    halves = [half.std() for half in np.array_split(corrected, 2)]
    assert halves[0] == pytest.approx(halves[1], rel=0.1)


@pytest.mark.parametrize("kind", ["none", "small", "nucleus", "constant"])
def test_other_sections_stay_as_they_are(section, kind):
    """Without shading, of few pixels, with a bright patch, or constant: the same to the bit."""
    if kind == "small":
        section = section[:90]
    if kind == "nucleus":
        y, x = np.mgrid[:SIDE, :SIDE]
        section[(y - 60) ** 2 + (x - 120) ** 2 < 35**2] += 40
    if kind == "constant":
        section[:] = 9
    assert np.array_equal(correct_shading(section.copy()), section)


def test_the_surface_is_a_polynomial_of_second_degree():
    """It follows one exactly, and leaves out what is of higher degree and odd."""
    y, x = np.mgrid[-1:1:7j, -1:1:7j]
    surface = 3 + y - 2 * x * x + x * y
    assert np.allclose(fit_quadratic(surface), surface)
