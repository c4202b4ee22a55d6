"""Drawn volumes: what the demo and the other tests may rely on."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from mitoda.errors import InputError
from mitoda.synthetic import SOURCE, TARGET, PhantomDomain, draw_instances, draw_phantom

SHAPE = (6, 192, 256)
PRESETS = pytest.mark.parametrize("domain", [SOURCE, TARGET], ids=["source", "target"])


@pytest.fixture(scope="module")
def volumes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {"source": draw_phantom(SOURCE, SHAPE, seed=5), "target": draw_phantom(TARGET, SHAPE, seed=5)}


def test_image_and_label_are_uint8_of_the_shape_asked_for(volumes):
    """A phantom is an image over most grey values and a label of 0 and 255, both of the shape asked for."""
    for image, label in volumes.values():
        assert image.shape == label.shape == SHAPE
        assert image.dtype == label.dtype == np.uint8
        assert set(np.unique(label)) == {0, 255}
        assert len(np.unique(image)) > 100


@PRESETS
def test_the_same_seed_draws_the_same_volume(domain: PhantomDomain):
    """A phantom is a function of its domain, shape and seed; another seed draws another one."""
    first, second, other = (draw_phantom(domain, (3, 96, 80), seed) for seed in (2, 2, 3))
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])


@PRESETS
def test_label_covers_exactly_what_the_mitochondria_change(domain: PhantomDomain):
    """With and without mitochondria a blur-free image differs all over the label, nowhere else."""
    sharp = replace(domain, planes=1, blur=0.0)
    image, label = draw_phantom(sharp, SHAPE, seed=5)
    empty_image, empty_label = draw_phantom(replace(sharp, mitochondria_share=0.0), SHAPE, seed=5)
    changed = image != empty_image
    assert not changed[label == 0].any()
    assert changed[label == 255].mean() > 0.9
    assert not empty_label.any()


def test_blur_and_thickness_reach_only_a_little_past_the_label():
    """The source preset's blur, at one plane a section, reaches at most 4 pixels past the label."""
    domain = replace(SOURCE, planes=1)
    image, label = draw_phantom(domain, SHAPE, seed=5)
    empty, _ = draw_phantom(replace(domain, mitochondria_share=0.0), SHAPE, seed=5)
    for section in range(SHAPE[0]):
        far = ndimage.distance_transform_edt(label[section] == 0) > 4
        assert np.array_equal(image[section][far], empty[section][far])


def test_thick_sections_keep_the_label_of_their_middle():
    """Averaging planes through a section changes its image but not its label, for odd and even numbers."""
    labels = [draw_phantom(replace(SOURCE, planes=n), (3, 96, 80), seed=2)[1] for n in (1, 2, 3)]
    assert np.array_equal(labels[0], labels[1])
    assert np.array_equal(labels[0], labels[2])


@pytest.mark.parametrize("seed", range(4))
@PRESETS
def test_mitochondria_take_five_to_twelve_percent(domain: PhantomDomain, seed: int):
    """In a view of 1.3 µm the foreground takes 5 to 12 %, as in real tissue."""
    _, label = draw_phantom(replace(domain, planes=1), (6, 256, 256), seed)
    assert 0.05 <= (label > 0).mean() <= 0.12


def test_neighbouring_sections_show_the_same_mitochondria(volumes):
    """Masks of neighbouring sections overlap: nearly wholly at 10 nm, largely at 50 nm."""

    def overlap(label: np.ndarray, step: int) -> float:
        first, second = label[:-step] > 0, label[step:] > 0
        return (first & second).sum() / (first | second).sum()

    thin, thick = volumes["target"][1], volumes["source"][1]
    assert overlap(thin, 1) > 0.9
    assert overlap(thick, 1) > 0.5
    assert overlap(thick, 1) > overlap(thick, 5)
    assert overlap(thin, 1) > overlap(thin, 5)


def test_the_world_does_not_depend_on_the_depth_it_is_cut_at():
    """Every second section at 25 nm is a section at 50 nm: the world lives in nanometres."""
    still = {
        "planes": 1,
        "noise": 0.0,
        "texture": 0.0,
        "illumination": 0.0,
        "flicker": 0.0,
        "mitochondria_share": 0.0,
    }
    thick, _ = draw_phantom(replace(SOURCE, **still), (3, 96, 96), seed=1)
    thin, _ = draw_phantom(replace(SOURCE, **still, voxel_size=(25.0, 5.0, 5.0)), (5, 96, 96), seed=1)
    assert np.array_equal(thick, thin[::2])


def test_the_two_domains_differ_in_their_statistics(volumes):
    """The source is brighter and has far more contrast; mitochondria are dark in both."""
    source, target = (volumes[name][0].astype(float) / 255 for name in ("source", "target"))
    assert source.mean() - target.mean() > 0.1
    assert source.std() > 1.4 * target.std()
    inside = {name: volumes[name][0][volumes[name][1] > 0].mean() for name in volumes}
    outside = {name: volumes[name][0][volumes[name][1] == 0].mean() for name in volumes}
    assert inside["source"] < outside["source"] - 20
    assert inside["target"] < outside["target"] - 20


def test_one_pixel_and_one_section_can_be_drawn():
    """Sizes down to a single voxel are drawn."""
    for shape in [(1, 1, 1), (1, 9, 100), (4, 8, 1)]:
        image, label = draw_phantom(SOURCE, shape, seed=0)
        assert image.shape == label.shape == shape


def test_impossible_requests_are_refused():
    """An empty shape, rectangular pixels and no plane at all are refused with the value found."""
    with pytest.raises(InputError, match=r"shape is \(0, 4, 4\); expected \(sections, rows, columns\)"):
        draw_phantom(SOURCE, (0, 4, 4), seed=0)
    with pytest.raises(InputError, match="square pixels"):
        PhantomDomain(voxel_size=(50.0, 5.0, 4.0))
    with pytest.raises(InputError, match="planes is 0"):
        replace(SOURCE, planes=0)


def test_instances_are_the_labels_one_by_one():
    """Images and labels are those of `draw_phantom`; mitochondria of one neurite touch only where they may."""
    shape = (4, 128, 128)
    image, label = draw_phantom(SOURCE, shape, 3)
    same, numbers = draw_instances(SOURCE, shape, 3)
    np.testing.assert_array_equal(image, same)
    np.testing.assert_array_equal(label > 0, numbers > 0)
    components, _ = ndimage.label(numbers, np.ones((3, 3, 3)))
    for component in range(1, components.max() + 1):
        assert len(np.unique(numbers[components == component])) == 1
