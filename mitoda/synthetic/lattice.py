"""The pixels of a section, a coarser lattice over them, and smooth noise on either."""

from functools import cached_property

import numpy as np

from mitoda.volumes.volume import VoxelSize

LATTICE = 40.0
"""Spacing in nanometres of the lattice on which distances are computed; pixels between are interpolated."""


class Frame:
    """The pixels of a section, and the lattice that covers it with a point every `step` pixels.

    pixels   0 1 2 3 4 5 6 7 8 9        lattice points at 0, 4, 8, 12 for a step of 4
    """

    def __init__(self, shape: tuple[int, int, int], voxel_size: VoxelSize) -> None:
        self.shape, self.pixel = shape, voxel_size[1]
        self.extent = np.array([(size - 1) * edge for size, edge in zip(shape, voxel_size, strict=True)])
        self.step = max(1, round(LATTICE / self.pixel))
        self.lattice = tuple(-(-(size - 1) // self.step) + 1 for size in shape[1:])
        self.rows, self.columns = (np.arange(size) * self.pixel for size in shape[1:])
        self.lattice_rows, self.lattice_columns = (
            np.arange(n) * self.step * self.pixel for n in self.lattice
        )

    @cached_property
    def upsampling(self) -> tuple[np.ndarray, np.ndarray]:
        """Matrices (pixels, lattice points) of linear interpolation along rows and columns."""
        rows, columns = (
            np.maximum(0, 1 - abs(np.arange(size)[:, None] / self.step - np.arange(points))).astype(
                np.float32
            )
            for size, points in zip(self.shape[1:], self.lattice, strict=True)
        )
        return rows, columns

    def window(self, wanted: np.ndarray) -> tuple[slice, slice] | None:
        """Smallest window of the lattice that holds the `wanted` points and one more on each side, or None."""
        if not wanted.any():
            return None
        ends = (np.flatnonzero(wanted.any(axis))[[0, -1]] for axis in (1, 0))
        rows, columns = (slice(max(0, first - 1), last + 2) for first, last in ends)
        return rows, columns

    def pixels(self, window: tuple[slice, slice]) -> tuple[slice, slice]:
        """The pixels between the first and the last lattice point of a window."""
        rows, columns = (
            slice(part.start * self.step, min(size, (min(part.stop, points) - 1) * self.step + 1))
            for part, size, points in zip(window, self.shape[1:], self.lattice, strict=True)
        )
        return rows, columns

    def interpolate(self, values: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        """Values on a window of the lattice, linearly interpolated to `pixels(window)`."""
        along_rows, along_columns = self.upsampling
        rows, columns = self.pixels(window)
        part = values.astype(np.float32)
        pixels: np.ndarray = along_rows[rows, window[0]] @ part @ along_columns[columns, window[1]].T
        return pixels


class SmoothNoise:
    """Gaussian noise in space, standard deviation 1: random values every `wavelength` nanometres, splined.

    It is defined at every depth, so neighbouring planes agree.
    """

    def __init__(self, rng: np.random.Generator, frame: Frame, wavelength: float, at_pixels: bool = False):
        lattice = frame.lattice_rows, frame.lattice_columns
        rows, columns = (frame.rows, frame.columns) if at_pixels else lattice
        self.wavelength = wavelength
        knots = [int(size / wavelength) + 8 for size in (frame.extent[0], rows[-1], columns[-1])]
        self.knots = rng.standard_normal(knots, dtype=np.float32)
        self.along_rows, self.along_columns = self.weights(rows, knots[1]), self.weights(columns, knots[2])

    def weights(self, positions: np.ndarray, knots: int) -> np.ndarray:
        """Cubic B-spline weights, shape (positions, knots), scaled to a variance of about 1."""
        distance = abs(positions[:, None] / self.wavelength + 3 - np.arange(knots))
        weights: np.ndarray = np.where(
            distance < 1, 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
        )
        weights /= np.sqrt(np.mean(np.sum(weights**2, axis=1)))
        return weights.astype(np.float32)

    def at(self, depth: float) -> np.ndarray:
        """The noise in the plane at this depth, float32, shape (rows, columns)."""
        coefficients = np.tensordot(self.weights(np.array([depth]), len(self.knots))[0], self.knots, axes=1)
        plane: np.ndarray = self.along_rows @ coefficients @ self.along_columns.T
        return plane
