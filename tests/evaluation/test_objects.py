"""Objects found: half of an object's voxels decide, through sections, by size class."""

import numpy as np

from mitoda.evaluation.objects import SPECK_NM3, ObjectCount, count_objects

VOXEL = (100.0, 100.0, 100.0)  # 1e6 nm³


def volume(*sections: list[str]) -> np.ndarray:
    """'#' is foreground."""
    return np.array([[[pixel == "#" for pixel in row] for row in section] for section in sections])


def counts(found: dict[str, ObjectCount]) -> list[tuple[int, int]]:
    return [(one.found, one.total) for one in found.values()]


def test_half_of_an_object_must_be_covered_and_its_volume_is_its_class():
    """2, 5 and 20 voxels of 10⁶ nm³ are small, medium and large; 1, 2 and 10 of them are covered."""
    labels = volume(["##.#####.####################"])
    mask = volume(["#..##....##########.........#"])
    assert counts(count_objects(mask, labels, VOXEL)) == [(1, 1), (0, 1), (1, 1)]


def test_an_object_goes_through_sections_by_faces_edges_and_corners():
    """Three voxels that touch at corners only are one object, found with two of them; a gap of a section parts them."""
    labels = volume(["#..", "..."], ["...", ".#."], ["..#", "..."])
    assert counts(
        count_objects(labels & volume(["#..", "..."], ["...", ".#."], ["...", "..."]), labels, VOXEL)
    )[0] == (1, 1)
    parted = volume(["#..", "..."], ["...", "..."], ["..#", "..."])
    assert counts(count_objects(parted, parted, VOXEL))[0] == (2, 2)


def test_a_section_that_is_not_scored_decides_nothing():
    """One voxel a section: half of the scored sections is enough; an object in no scored one is left out."""
    labels = volume(["#.."], ["#.."], ["#.#"])
    mask = volume(["#.."], ["..."], ["#.#"])
    assert counts(count_objects(mask, labels, VOXEL, sections=[0, 1]))[0] == (1, 1)
    assert counts(count_objects(mask, labels, VOXEL, sections=[1]))[0] == (0, 1)
    assert counts(count_objects(mask, labels, VOXEL))[0] == (2, 2)


def test_specks_and_empty_labels_count_nothing():
    """A component just below the limit is no object; without labels there are none to find."""
    labels = volume(["#..##"])
    side = (SPECK_NM3 * 0.6) ** (1 / 3)  # one voxel is 0.6 specks, two are 1.2
    assert counts(count_objects(labels, labels, (side, side, side)))[0] == (1, 1)
    nothing = np.zeros_like(labels)
    assert counts(count_objects(labels, nothing, VOXEL)) == [(0, 0)] * 3
