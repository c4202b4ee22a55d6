"""Drawn tissue of random kinds."""

import numpy as np
import pytest

from mitoda.synthetic.lattice import Frame
from mitoda.synthetic.section import Section, draw_piece
from mitoda.synthetic.tissue import KINDS, lay_out_piece

VOXEL = (50.0, 5.0, 5.0)


def sections_of(seed: int, side: int = 160) -> list[Section]:
    """Two sections of a piece, before the microscope."""
    rng = np.random.default_rng(seed)
    piece = lay_out_piece(rng, Frame((2, side, side), VOXEL))
    return [Section(piece, depth, rng) for depth in (0.0, 50.0)]


def test_a_seed_draws_the_same_piece_again() -> None:
    """Images and labels depend on the seed alone."""
    first, second, other = (draw_piece(seed, 96, 2, VOXEL) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != other[0]).any()


def test_labels_are_where_a_mitochondrion_is_deeper_than_its_surface() -> None:
    """No labelled pixel lies in a nucleus, and the inside of mitochondria lies clear of cell membranes."""
    found, near = 0, 0
    for seed in range(12):
        for section in sections_of(seed):
            inside = section.depth_in > 0
            found += int(inside.sum())
            assert (section.nuclear[inside] < 0).all()
            core = inside & (section.depth_in > 30) & ~section.in_soma & (section.fibre < 0)
            near += int((section.cell.border[core] < 10).sum())
    assert found > 1000
    assert near < 0.002 * found


def test_the_surface_of_mitochondria_is_dark() -> None:
    """On average over pieces the labels end where the drawn image is darker than 30 nm further in or out."""
    darkness = []
    for seed in range(30):
        section = sections_of(seed)[0]
        image, depth = section.draw(), section.depth_in
        rims = [image[abs(depth - at) < 3] for at in (-25, 4, 34)]
        if min(map(len, rims)) > 50 and section.look.envelope > 0.5:
            outside, rim, inner = (float(one.mean()) for one in rims)
            darkness.append((outside - rim, inner - rim))
    assert len(darkness) > 5
    assert (np.mean(darkness, axis=0) > 0.03).all()


def test_neighbouring_sections_show_the_same_mitochondria() -> None:
    """Sections 50 nm apart overlap far more than by chance."""
    dice = []
    for seed in range(12):
        _, label = draw_piece(seed, 160, 2, VOXEL)
        total = int(label[0].sum()) + int(label[1].sum())
        if total > 2000:
            dice.append(2 * int((label[0] & label[1]).sum()) / total)
    assert np.mean(dice) > 0.7


def test_pieces_are_as_varied_as_promised() -> None:
    """Forty pieces span dark and bright, with none to half of their area mitochondria, and shares sum to one."""
    assert sum(kind.share for kind in KINDS.values()) == pytest.approx(1)
    pieces = [draw_piece(seed, 128, 1, VOXEL) for seed in range(40)]
    shares = [float(label.mean()) for _, label in pieces]
    means = [float(image.mean()) for image, _ in pieces]
    assert min(shares) == 0
    assert max(shares) > 0.2
    assert 0.04 < np.mean(shares) < 0.25
    assert np.ptp(means) > 60
