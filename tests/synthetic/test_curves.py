"""Distances to random curves."""

import numpy as np

from mitoda.synthetic.curves import STEP, Curves, bent_line


def straight(start: tuple[float, float, float], points: int) -> np.ndarray:
    """A line along the columns."""
    return np.array(start) + np.arange(points)[:, None] * np.array([0.0, 0.0, STEP])


def plane(rows: int, columns: int, pixel: float = 5.0) -> np.ndarray:
    """Places of the pixels of the plane at depth 0."""
    row, column = np.meshgrid(np.arange(rows) * pixel, np.arange(columns) * pixel, indexing="ij")
    return np.stack([np.zeros_like(row), row, column], axis=-1).astype(np.float32)


def test_distance_to_a_straight_line_is_exact_between_its_points() -> None:
    """Beside a line through (0, 100, ·) the distance is the difference in rows, everywhere along it."""
    curves = Curves.join([straight((0, 100, -200), 20)], [7])
    near = curves.nearest(plane(40, 40))
    assert (near.owner == 7).all()
    np.testing.assert_allclose(
        near.distance, np.broadcast_to(abs(np.arange(40) * 5.0 - 100)[:, None], (40, 40)), atol=1e-3
    )
    np.testing.assert_allclose(np.diff(near.along, axis=1), 5.0, atol=1e-3)


def test_border_lies_half_way_between_two_owners() -> None:
    """Between lines in rows 50 and 150 nm the border is row 100, to which the distance grows by 1 nm a nm."""
    curves = Curves.join([straight((0, 50, -400), 40), straight((0, 150, -400), 40)], [0, 1])
    near = curves.nearest(plane(40, 40))
    rows = np.arange(40) * 5.0
    between = (rows > 50) & (rows < 150)
    np.testing.assert_allclose(near.border[between, 20], abs(rows - 100)[between], atol=1e-3)
    assert (near.owner[rows < 100] == 0).all()
    assert (near.owner[rows > 100] == 1).all()


def test_two_lines_of_one_owner_have_no_border_between_them() -> None:
    """A branch belongs to its mitochondrion, so the border there is that to the next owner."""
    lines = [straight((0, 50, -400), 40), straight((0, 90, -400), 40), straight((0, 300, -400), 40)]
    near = Curves.join(lines, [0, 0, 1]).nearest(plane(40, 40))
    assert near.border[14, 20] > 100


def test_a_bent_line_keeps_its_step_and_length() -> None:
    """Points are `STEP` apart, however much the line bends."""
    line = bent_line(np.random.default_rng(1), np.zeros(3), np.array([1.0, 0, 0]), 2000, bend=1.0)
    np.testing.assert_allclose(np.linalg.norm(np.diff(line, axis=0), axis=1), STEP, rtol=1e-6)
    assert len(line) == 2000 / STEP + 1
