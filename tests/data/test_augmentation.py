"""Random changes: geometry against numpy, photometry against scipy, and both sections treated alike."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mitoda.data.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    Window,
    augmentation_named,
    change_grey_values,
    draw_displacement,
    draw_window,
    gaussian_blur,
    match_histogram,
    motion_blur,
    normalise,
    warp,
)
from mitoda.errors import InputError

IDENTITY = ((1.0, 0.0), (0.0, 1.0))
CPU = torch.device("cpu")


def picture(rows: int = 40, columns: int = 50, channels: int = 1) -> torch.Tensor:
    """Random pixels, (channels, rows, columns)."""
    return torch.rand(channels, rows, columns, generator=torch.Generator().manual_seed(rows * columns))


def seeded(seed: int) -> torch.Generator:
    """A generator from a seed."""
    return torch.Generator().manual_seed(seed)


def test_the_identity_reproduces_the_crop_exactly():
    """A window of whole pixels without rotation or zoom is a crop, bit for bit up to 1e-6."""
    image = picture()
    window = Window(IDENTITY, (9.5, 19.5), 16)  # centred between pixels 9 and 10
    rows, columns = window.bounds((40, 50))
    patch = warp(image[:, rows, columns], window, (rows.start, columns.start))
    assert torch.allclose(patch, image[:, 2:18, 12:28], atol=1e-6)


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_quarter_turns_and_flips_are_numpys(turns, mirrored):
    """The eight symmetries of a square are those of numpy.rot90 and numpy.flip, without interpolation."""
    image = picture(16, 16)
    cosine, sine, mirror = math.cos(turns * math.pi / 2), math.sin(turns * math.pi / 2), -1 if mirrored else 1
    window = Window(((cosine * mirror, -sine), (sine * mirror, cosine)), (7.5, 7.5), 16)
    expected = np.rot90(image[0].numpy(), -turns)
    if mirrored:
        expected = np.flip(expected, 0)
    assert np.allclose(warp(image, window, (0, 0))[0].numpy(), expected, atol=1e-5)


def test_resampling_keeps_areas_in_nanometres():
    """A disc of 200 nm drawn at 4.6 nm pixels covers π·200² nm² when read at 5 nm, and at 10 nm (averaged first)."""
    size, radius = 401, 200 / 4.6
    y, x = np.mgrid[:size, :size] - size // 2
    disc = torch.from_numpy(np.clip(radius - np.hypot(y, x) + 0.5, 0, 1).astype(np.float32))[None]
    for pixel in (5.0, 10.0, 23.0):
        scale = pixel / 4.6
        side = int(380 / scale)
        window = Window(((scale, 0.0), (0.0, scale)), (size // 2, size // 2), side)
        area = float(warp(disc, window, (0, 0)).sum()) * pixel**2
        assert area == pytest.approx(math.pi * 200**2, rel=0.01)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from(list(AUGMENTATIONS)),
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.tuples(st.floats(0.4, 4.0), st.floats(0.4, 4.0)),
    st.sampled_from([16, 32]),
    st.booleans(),
)
def test_the_bounding_box_holds_all_that_a_patch_needs(seed, name, shape, scale, side, displaced):
    """A patch warped from its crop equals the patch warped from the whole section, with elastic displacement too."""
    generator = seeded(seed)
    window = draw_window(AUGMENTATIONS[name], generator, side, shape, scale)
    section = picture(*shape)
    displacement = torch.rand(side, side, 2, generator=generator) * 16 - 8 if displaced else None
    rows, columns = window.bounds(shape)
    assert 0 <= rows.start < rows.stop <= shape[0]
    assert 0 <= columns.start < columns.stop <= shape[1]
    crop = section[:, rows, columns]
    whole = warp(section, window, (0, 0), displacement)
    if crop.shape[1] >= window.shrink and crop.shape[2] >= window.shrink:
        part = warp(crop, window, (rows.start, columns.start), displacement)
        assert torch.allclose(part, whole, atol=2e-3)


def test_a_section_smaller_than_the_patch_is_centred_and_mirrored():
    """Outside a 4×4 section its mirror image continues, edge pixels repeated."""
    image = torch.arange(16.0).reshape(1, 4, 4)
    window = draw_window(AUGMENTATIONS["none"], seeded(0), 8, (4, 4), (1.0, 1.0))
    assert window.offset == (1.5, 1.5)
    window = Window(IDENTITY, window.offset, 8)
    expected = np.pad(image[0].numpy(), 2, mode="symmetric")
    assert np.allclose(warp(image, window, (0, 0))[0].numpy(), expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["strong", "paper", "none"]))
def test_patches_lie_inside_sections_they_fit_in(seed, name):
    """Whatever the angle and zoom, the corners of a patch that fits are within the section."""
    window = draw_window(AUGMENTATIONS[name], seeded(seed), 32, (200, 300), (1.1, 0.9))
    corners = np.array([(y, x) for y in (-15.5, 15.5) for x in (-15.5, 15.5)])
    places = corners @ np.array(window.matrix).T + np.array(window.offset)
    assert (places >= -1e-6).all()
    assert (places <= np.array([199, 299]) + 1e-6).all()


def test_both_sections_of_a_pair_get_the_same_grey_values():
    """Equal sections stay equal under every photometric change but noise, which is drawn for each."""
    section = picture(48, 48)[0]
    images = torch.stack([section, section])[None].repeat(3, 1, 1, 1)
    for name in ("strong", "paper"):
        quiet = replace(AUGMENTATIONS[name], noise=0.0)
        changed = change_grey_values(images, quiet, seeded(1))
        assert torch.equal(changed[:, 0], changed[:, 1])
        assert not torch.allclose(changed[:, 0], images[:, 0])
    noisy = change_grey_values(images, AUGMENTATIONS["strong"], seeded(1))
    assert not torch.equal(noisy[:, 0], noisy[:, 1])


def test_without_augmentation_grey_values_are_scaled_and_nothing_else():
    """ "none" gives 0 to 1, and a window of whole pixels."""
    images = 100 + 50 * picture(20, 20, 2)[None]
    changed = change_grey_values(images, AUGMENTATIONS["none"], seeded(0))
    assert changed.amin((-2, -1)).eq(0).all()
    assert changed.amax((-2, -1)).allclose(torch.ones(1, 2))
    assert np.corrcoef(changed[0, 0].ravel(), images[0, 0].ravel())[0, 1] == pytest.approx(1)


def test_a_change_is_drawn_from_the_seed_alone():
    """The same seed changes alike, another differently."""
    images = picture(32, 32, 2)[None]
    one, again, other = (change_grey_values(images, AUGMENTATIONS["strong"], seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_half_of_the_pairs_stay_as_they_are_with_the_papers_odds():
    """Probability 0.5: about half of the windows are unzoomed quarter turns."""
    generator = seeded(0)
    paper = AUGMENTATIONS["paper"]
    plain = 0
    for _ in range(400):
        (a, b), (c, d) = draw_window(paper, generator, 16, (100, 100), (1.0, 1.0)).matrix
        plain += sorted(abs(round(v, 9)) for v in (a, b, c, d)) == [0, 0, 1, 1]
    assert 160 < plain < 240


@pytest.mark.parametrize("sigma", [0.6, 1.5, 2.5])
def test_gaussian_blur_is_scipys(sigma):
    """Mirrored at the edges without repeating the edge pixel; σ = 0 changes nothing, and the input stays."""
    images = picture(30, 34, 2).reshape(2, 30, 34)
    before = images.clone()
    blurred = gaussian_blur(images, sigma)
    reach = math.ceil(3 * sigma)
    expected = ndimage.gaussian_filter(images[1].numpy(), sigma, mode="mirror", radius=reach)
    assert np.allclose(blurred[1].numpy(), expected, atol=1e-5)
    assert torch.equal(images, before)
    assert gaussian_blur(images, 0.0) is images


def test_motion_blur_averages_along_a_line():
    """A point becomes a horizontal line of 5 at 0 radians and a vertical one at π/2; its sum stays."""
    images = torch.zeros(2, 11, 11)
    images[:, 5, 5] = 1
    level, upright = motion_blur(images, 5, 0.0), motion_blur(images, 5, math.pi / 2)
    assert torch.allclose(level[0, 5, 3:8], torch.full((5,), 0.2))
    assert torch.allclose(upright[1, 3:8, 5], torch.full((5,), 0.2))
    assert float(level[0].sum()) == pytest.approx(1)


def test_matching_histograms_gives_the_quantiles_of_the_reference():
    """After matching, every section has the other's quantiles, and the order of its pixels stays."""
    images = picture(64, 64, 2)[None] ** 3
    reference = 10 + 5 * torch.randn(1, 2, 64, 64, generator=seeded(3))
    matched = match_histogram(images, reference)
    levels = torch.linspace(0.02, 0.98, 25)
    for k in range(2):
        assert torch.allclose(matched[0, k].quantile(levels), reference[0, k].quantile(levels), atol=0.15)
        order = images[0, k].ravel().argsort()
        assert (matched[0, k].ravel()[order].diff() >= -1e-4).all()


def test_matching_equal_histograms_changes_nothing_and_constants_stay_finite():
    """A section matched to itself stays; a constant one gets one value of the reference."""
    images = picture(32, 32, 2)[None]
    assert torch.allclose(match_histogram(images, images), images, atol=0.01)
    flat = match_histogram(torch.full_like(images, 7.0), images)
    assert flat.isfinite().all()
    assert flat[0, 0].unique().numel() == 1


@pytest.mark.parametrize("kind", ["standard", "minmax"])
def test_normalisation_is_per_section_and_finite_on_constant_ones(kind):
    """Mean 0 and variance 1, or 0 to 1; a constant section becomes 0."""
    images = torch.stack([100 + 20 * picture(16, 16)[0], torch.full((16, 16), 9.0)])[None]
    first, second = normalise(images, kind)[0]
    if kind == "standard":
        assert float(first.mean()) == pytest.approx(0, abs=1e-4)
        assert float(first.std(correction=0)) == pytest.approx(1, rel=1e-4)
    else:
        assert (float(first.min()), float(first.max())) == pytest.approx((0, 1))
    assert second.eq(0).all()


def test_constant_patches_survive_every_change():
    """No division by zero in a section without contrast."""
    images = torch.full((2, 2, 32, 32), 128.0)
    for name in AUGMENTATIONS:
        changed = normalise(change_grey_values(images, AUGMENTATIONS[name], seeded(5)), "standard")
        assert changed.isfinite().all()


def test_displacements_are_smooth_rare_and_of_the_size_asked_for():
    """Three times in ten, spread as σ says, and neighbouring pixels move alike."""
    always = Augmentation(probability=1.0, elastic=2.0)
    generator = seeded(0)
    drawn = [draw_displacement(always, generator, 256, CPU) for _ in range(200)]
    found = [d for d in drawn if d is not None]
    assert 40 < len(found) < 80
    assert 1.0 < torch.stack(found).std() < 2.5
    assert all(float(d.diff(dim=0).abs().max()) < 0.5 for d in found)
    assert draw_displacement(AUGMENTATIONS["strong"], generator, 64, CPU) is None


def test_an_unknown_augmentation_lists_the_known():
    """With all names."""
    with pytest.raises(InputError, match="'weak'; choose one of: strong, wide, paper, none"):
        augmentation_named("weak")
