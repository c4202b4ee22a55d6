"""Mitochondria one by one: splitting, linking, and independence of slabs."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from mitoda.errors import FileError, InputError
from mitoda.evaluation.instance_scores import score_instances
from mitoda.postprocessing import cells
from mitoda.postprocessing.basins import group
from mitoda.postprocessing.instances import check_labels_path, instances, write_instances
from mitoda.volumes import open_values

TOUCHING = np.zeros((3, 3, 3), bool)
TOUCHING[1] = True
TOUCHING[:, 1, 1] = True


def stacked(mask, **options):
    """All sections of the labels."""
    return np.stack(list(instances(mask, **options)))


def draw_capsules(shape, voxel_size, capsules):
    """Instance numbers of capsules (start, end, radius), all in nanometres; a later one never covers an earlier one."""
    points = np.stack(
        np.meshgrid(*(np.arange(n) * side for n, side in zip(shape, voxel_size, strict=True)), indexing="ij"),
        -1,
    )
    labels = np.zeros(shape, np.uint16)
    for number, (start, end, radius) in enumerate(capsules, 1):
        line = np.subtract(end, start)
        along = np.clip((points - start) @ line / max(line @ line, 1e-9), 0, 1)
        distance = np.linalg.norm(points - start - along[..., None] * line, axis=-1)
        labels[(distance <= radius) & (labels == 0)] = number
    return labels


def touching_pairs(rng, count, size=1000.0):
    """Pairs of capsules in random directions that touch end to end, in a cube of `size` nm; pairs keep clear."""
    capsules = []
    while len(capsules) < 2 * count:
        radius = rng.uniform(70, 130)
        other = radius * rng.uniform(0.8, 1.25)
        direction, turn = rng.standard_normal((2, 3))
        direction /= np.linalg.norm(direction)
        turned = direction + 0.3 * turn
        turned /= np.linalg.norm(turned)
        end = rng.uniform(300, size - 300, 3)
        begin = end + turned * (radius + other - 15)
        pair = [
            (end - direction * rng.uniform(150, 400), end, radius),
            (begin, begin + turned * rng.uniform(150, 400), other),
        ]
        if all(distance(one, earlier) > 30 for one in pair for earlier in capsules):
            capsules += pair
    return capsules


def distance(one, other):
    """Nanometres between the surfaces of two capsules."""
    lines = [np.linspace(start, end, 30) for start, end, _ in (one, other)]
    return cdist(*lines).min() - one[2] - other[2]


def test_touching_mitochondria_are_told_apart():
    """From exact masks of drawn volumes in which most touch: AP at IoU 0.5 is 0.9 or more, over several drawings."""
    found = every = touching = 0
    for seed in range(3):
        for voxel_size, shape in (((10, 10, 10), (100,) * 3), ((40, 8, 8), (25, 125, 125))):
            truth = draw_capsules(shape, voxel_size, touching_pairs(np.random.default_rng(seed), 2))
            score = score_instances(stacked(truth > 0, voxel_size=voxel_size), truth)
            touching += score.labelled - ndimage.label(truth, TOUCHING)[1]
            found += score.matched[0].tp
            every += score.matched[0].tp + score.matched[0].fp + score.matched[0].fn
    assert touching >= 10
    assert found / every >= 0.9


def test_a_thin_neck_is_cut_and_a_thick_one_kept():
    """Two balls of radius 150 nm with a bridge of radius 40 nm are two; with one of radius 120 nm, one."""
    for radius, expected in ((40, 2), (120, 1)):
        truth = draw_capsules(
            (40, 40, 90),
            (10, 10, 10),
            [
                ((200,) * 3, (200,) * 3, 150),
                ((200, 200, 600),) * 2 + (150,),
                ((200,) * 3, (200, 200, 600), radius),
            ],
        )
        result = instances(truth > 0, voxel_size=(10, 10, 10))
        assert (result.components, result.count) == (1, expected)


def test_distances_are_those_of_anisotropic_voxels():
    """The same two balls and bridge, cut in 50 nm sections along any axis, are two mitochondria."""
    for axis in range(3):
        ends = np.full((2, 3), 200.0)
        ends[1, axis] = 600
        shape = [9, 80, 80]
        shape[axis] = (17, 160, 160)[axis]
        bodies = [(ends[0], ends[0], 150), (ends[1], ends[1], 150), (ends[0], ends[1], 40)]
        truth = draw_capsules(shape, (50, 5, 5), bodies)
        assert instances(truth > 0, voxel_size=(50, 5, 5)).count == 2


@pytest.mark.parametrize("voxel_size", [(5, 5, 5), (20, 20, 20), (50, 10, 10)])
def test_slabs_of_any_height_give_the_same_labels(voxel_size):
    """Slabs of one, two or three layers equal the whole volume at once, on rough random foreground."""
    rng = np.random.default_rng(3)
    noise = ndimage.gaussian_filter(rng.standard_normal((25, 60, 70)), (2, 5, 5))
    mask = noise > 0.01
    chance = ndimage.gaussian_filter(rng.random(mask.shape), 1).astype(np.float32)
    whole = stacked(mask, voxel_size=voxel_size, probability=chance, slab=1000)
    assert whole.max() > 3
    for slab in (1, 3):
        np.testing.assert_array_equal(
            stacked(mask, voxel_size=voxel_size, probability=chance, slab=slab), whole
        )


def test_tiles_do_not_change_heights(monkeypatch):
    """Distances computed in small tiles are those of the whole window."""
    rng = np.random.default_rng(4)
    window = (ndimage.gaussian_filter(rng.standard_normal((12, 90, 110)), 4) > 0).astype(np.float32)
    expected = np.rint(np.minimum(ndimage.distance_transform_edt(window, sampling=(20, 20, 20)), 400) * 10)
    monkeypatch.setattr(cells, "TILE", 16)
    np.testing.assert_array_equal(cells.heights(window, (20.0, 20.0, 20.0), slice(0, 12)), expected)


def test_distances_end_at_the_limit_and_without_background():
    """A window without any 0 has the largest height everywhere."""
    assert (cells.heights(np.ones((2, 3, 4), np.float32), (20.0, 20.0, 20.0), slice(0, 2)) == 4000).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**16), sections=st.integers(1, 6), share=st.floats(0.2, 0.8))
def test_without_splitting_labels_are_connected_components(seed, sections, share):
    """Equal to scipy's components of the whole volume, numbered in the order of their first voxel."""
    mask = np.random.default_rng(seed).random((sections, 12, 14)) < share * 0.5
    expected, count = ndimage.label(mask, TOUCHING)
    result = instances(mask, split=False)
    assert result.count == result.components == count
    np.testing.assert_array_equal(np.stack(list(result)), expected)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**16))
def test_labels_cover_the_mask_and_are_connected(seed):
    """Every voxel of the mask has a number, no other has, and each number is one connected body."""
    noise = np.random.default_rng(seed).standard_normal((12, 48, 48))
    mask = ndimage.gaussian_filter(noise, (1.5, 4, 4)) > 0
    mask = np.stack(
        [cells.fill_small_holes(section, 100) for section in mask]
    )  # islands in holes are not split off
    labels = stacked(mask, voxel_size=(40, 10, 10))
    np.testing.assert_array_equal(labels > 0, mask)
    for number in range(1, labels.max() + 1):
        assert ndimage.label(labels == number, np.ones((3, 3, 3)))[1] == 1


def test_low_probability_makes_a_neck_thinner():
    """A thick bridge that the network is unsure of is cut; with the same mask and a sure network it is not."""
    mask = np.zeros((1, 80, 160), bool)
    mask[0, 10:70, 10:70] = mask[0, 10:70, 90:150] = mask[0, 15:65, 70:90] = True
    chance = np.where(mask, 1.0, 0.0).astype(np.float32)
    assert instances(mask, voxel_size=(5, 5, 5), probability=chance).count == 1
    chance[0, :, 70:90] *= 0.5
    assert instances(mask, voxel_size=(5, 5, 5), probability=chance).count == 2
    assert instances(mask, voxel_size=(5, 5, 5), probability=(chance * 255).astype(np.uint8)).count == 2


def test_small_holes_do_not_split():
    """A disc full of holes of 20 nm is one mitochondrion, and the holes stay background."""
    rows, columns = np.mgrid[:100, :100]
    mask = ((rows - 50) ** 2 + (columns - 50) ** 2 < 40**2)[None]
    mask[0, 20:80:12, 20:80:12] = False
    result = instances(mask, voxel_size=(5, 5, 5))
    assert result.count == 1
    np.testing.assert_array_equal(np.stack(list(result)) > 0, mask)


def test_thin_structures_are_numbered_too():
    """A line one voxel thick, where no cell is full, is one mitochondrion."""
    mask = np.zeros((6, 30, 30), bool)
    mask[:, 5, 5] = True
    mask[2, 20, 3:28] = True
    result = instances(mask, voxel_size=(5, 5, 5))
    assert result.count == 2
    assert np.stack(list(result))[2, 20, 3:28].tolist() == [2] * 25


def test_an_empty_mask_has_no_mitochondria():
    """No numbers, one or several sections."""
    for sections in (1, 9):
        result = instances(np.zeros((sections, 20, 20), bool), voxel_size=(5, 5, 5))
        assert (result.count, result.components) == (0, 0)
        assert not np.stack(list(result)).any()


def test_a_body_in_small_pieces_between_slabs_is_one():
    """A long rod through 60 sections and many slabs is one mitochondrion."""
    mask = np.zeros((60, 40, 40), bool)
    mask[:, 10:30, 10:30] = True
    assert instances(mask, voxel_size=(20, 10, 10), slab=1).count == 1


def test_pairs_are_grouped_in_either_order():
    """(2, 1) and (1, 2) are one pair, (3, 3) is none."""
    low, high, values = group(
        *(np.array(part) for part in ([2, 1, 3, 5], [1, 2, 3, 4], [7, 9, 1, 4])), np.maximum
    )
    assert (low.tolist(), high.tolist(), values.tolist()) == ([1, 4], [2, 5], [9, 4])


def test_labels_are_written_with_the_voxel_size(tmp_path):
    """uint16, as ImageJ reads it; the numbers and the voxel size come back."""
    mask = np.zeros((2, 20, 20), np.uint8)
    mask[:, 2:8, 2:8] = mask[:, 12:18, 12:18] = 255
    result = instances(mask, voxel_size=(50, 5, 5))
    write_instances(tmp_path / "labels.tif", result)
    back = open_values(tmp_path / "labels.tif")
    assert (back.dtype, back.voxel_size) == (np.uint16, (50, 5, 5))
    np.testing.assert_array_equal(back.read(1), list(result)[1])
    with tifffile.TiffFile(tmp_path / "labels.tif") as tiff:
        assert tiff.is_imagej


def test_more_than_65535_mitochondria_become_a_32_bit_bigtiff(tmp_path):
    """Of 270 × 270 single pixels the last has its own number, in a BigTIFF that tifffile, and so napari, opens."""
    mask = np.zeros((1, 540, 540), np.uint8)
    mask[0, ::2, ::2] = 1
    result = instances(mask, split=False)
    write_instances(tmp_path / "labels.tif", result)
    assert result.dtype == np.uint32
    with tifffile.TiffFile(tmp_path / "labels.tif") as tiff:
        assert tiff.is_bigtiff
        assert tiff.asarray().max() == 270 * 270
    assert open_values(tmp_path / "labels.tif").read(0).max() == 270 * 270


def test_bad_arguments_are_refused(tmp_path):
    """Without a voxel size, with a map of another shape, with a share above 1, with another file type."""
    mask = np.ones((2, 8, 8), bool)
    with pytest.raises(InputError, match=r"no voxel size.*--voxel-size Z Y X, or --no-split"):
        instances(mask)
    with pytest.raises(InputError, match=r"has shape .*\(2, 8, 9\); expected equal shapes"):
        instances(mask, voxel_size=(5, 5, 5), probability=np.ones((2, 8, 9)))
    with pytest.raises(InputError, match=r"min_neck is 1\.5"):
        instances(mask, voxel_size=(5, 5, 5), min_neck=1.5)
    with pytest.raises(InputError, match=r"must end in \.tif"):
        check_labels_path(tmp_path / "labels.png", [])
    (tmp_path / "labels.tif").touch()
    with pytest.raises(FileError, match="exists"):
        check_labels_path(tmp_path / "labels.tif", [])
