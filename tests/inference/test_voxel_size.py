"""A voxel size that nobody has said, found from images: how thick a section is, and how large a pixel."""

import numpy as np
import pytest
from scipy import ndimage

from mitoda.errors import InputError
from mitoda.inference import voxel_size as scale_search
from mitoda.inference.voxel_size import middle_of_peak, search_voxel_size, section_thickness
from mitoda.volumes import ArrayVolume
from tests.fakes import model_of, tiny_network

MODEL = model_of(tiny_network(), (6.0, 5.0), 50.0)


def tissue(every: int = 1, noise: float = 0.0) -> ArrayVolume:
    """Blobs as large in all directions, of which one section in `every` is kept."""
    rng = np.random.default_rng(0)
    fine = ndimage.gaussian_filter(rng.normal(size=(6 * every + 60, 128, 128)), 8.0)[30:-30:every]
    fine = 128 + 40 * fine / fine.std()
    return ArrayVolume((fine + rng.normal(0, noise, fine.shape)).clip(0, 255).astype(np.uint8), name="tissue")


@pytest.mark.parametrize("every", [1, 4, 8])
@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_a_section_is_as_thick_as_the_shift_that_changes_as_much(every, noise):
    """Of an isotropic world cut at every n-th plane, a section is n pixels thick, within a fifth; noise or not."""
    assert section_thickness(tissue(every, noise)) == pytest.approx(every, rel=0.2)


@pytest.fixture
def agreement_at(monkeypatch):
    """Let a network agree best where sections are enlarged by a factor, and find foreground there."""

    def make(zoom: float, foreground: float = 0.05) -> list[tuple[int, tuple[float, float]]]:
        seen = []

        def scores(model, pairs, **options):
            seen.append((pairs.stride, pairs.scale))
            off = abs(np.log(pairs.scale[0] * zoom))
            return {"two_context_dice": 0.9 - off, "foreground": foreground}

        monkeypatch.setattr(scale_search, "consistency_scores", scores)
        return seen

    return make


@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.0])
def test_the_pixel_is_taken_at_which_the_two_predictions_agree_best(agreement_at, zoom):
    """A network that works at 6 × 5 nm and agrees best at stacks enlarged twice takes pixels of 12 × 10 nm."""
    agreement_at(zoom)
    found = search_voxel_size(tissue(4), MODEL)
    assert found.voxel_size[1:] == pytest.approx((6 * zoom, 5 * zoom))
    assert found.voxel_size[0] == pytest.approx(4 * 6 * zoom, rel=0.2)
    assert f"{6 * zoom:.3g} {5 * zoom:.3g} nm" in found.sentence
    assert "--voxel-size Z Y X" in found.sentence


def test_every_section_looked_at_has_a_neighbour_on_both_sides(agreement_at):
    """Pairs are 50 nm apart where the stack is deep enough, and never so far that no middle is left."""
    seen = agreement_at(1.0)
    search_voxel_size(tissue(1), MODEL)
    strides = [stride for stride, _ in seen]
    assert max(strides) == 2  # of 6 sections
    assert min(strides) >= 1


@pytest.mark.parametrize("foreground", [0.0, 0.9])
def test_nothing_or_everything_found_is_no_scale(agreement_at, foreground):
    """Refused, with what to give instead, where the network sees nothing sensible at any scale."""
    agreement_at(1.0, foreground)
    with pytest.raises(InputError, match=r"finds no mitochondria at any scale.*--voxel-size Z Y X"):
        search_voxel_size(tissue(), MODEL)


def test_two_sections_are_too_few():
    """No section has two answers then."""
    few = ArrayVolume(tissue().array[:2], name="few")
    with pytest.raises(InputError, match=r"few .* takes three sections.*--voxel-size Z Y X"):
        search_voxel_size(few, MODEL)


def test_of_a_flat_peak_the_middle_is_taken():
    """A lone far value as good as the peak does not move it; at the end of the range the end counts."""
    flat = [0.5, 0.6, 0.9, 0.94, 0.95, 0.94, 0.94, 0.8, 0.95, 0.5]
    assert middle_of_peak(flat) == pytest.approx((0.8 * 1.0 * 1.25 * 1.6) ** 0.25)
    assert middle_of_peak([0.9, 0.5, *[0.1] * 8]) == pytest.approx(0.4)


def test_a_stated_pixel_size_is_kept_and_only_the_thickness_estimated(monkeypatch):
    """Every fourth plane of an isotropic world at 5 × 5 nm: 20 nm, without the network; two sections are enough."""
    monkeypatch.setattr(scale_search, "consistency_scores", None)
    stack = tissue(4)
    stack.stated = (None, 5.0, 5.0)
    found = search_voxel_size(stack, MODEL)
    assert found.voxel_size == (pytest.approx(20, rel=0.2), 5.0, 5.0)
    assert "the metadata have pixels of 5 × 5 nm, but no section thickness" in found.sentence
    single = ArrayVolume(stack.array[:1], name="single", stated=stack.stated)
    with pytest.raises(InputError, match=r"a single section does not show its thickness.*--voxel-size Z Y X"):
        search_voxel_size(single, MODEL)


def test_a_stated_thickness_is_kept_and_only_the_pixel_size_searched(agreement_at):
    """The agreement decides the pixel; the thickness stays as stated."""
    agreement_at(2.0)
    stack = tissue(4)
    stack.stated = (33.0, None, None)
    found = search_voxel_size(stack, MODEL)
    assert found.voxel_size == pytest.approx((33.0, 12.0, 10.0))
    assert "the metadata have no pixel size" in found.sentence
