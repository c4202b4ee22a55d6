"""A stack and its masks in napari, read section by section while a person looks at them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes import Volume
from mitoda.volumes.volume import check_same_shape


class LazyArray:
    """A volume as an array of (section, row, column) that reads only what is indexed.

    Examples
    --------
    >>> from mitoda.volumes import ArrayVolume
    >>> lazy = LazyArray(ArrayVolume(np.arange(24).reshape(2, 3, 4)))
    >>> lazy.shape, lazy[1, 2, :2].tolist(), lazy[:, 1, 0].tolist(), np.asarray(lazy).sum().item()
    ((2, 3, 4), [20, 21], [4, 16], 276)
    """

    ndim = 3

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.shape = volume.shape
        self.dtype = volume.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Index with integers, slices and an ellipsis."""
        parts = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in parts:
            place = parts.index(Ellipsis)
            parts[place : place + 1] = [slice(None)] * (4 - len(parts))
        section, inside = parts[0], tuple(parts[1:])
        if not isinstance(section, slice):
            return np.asarray(self.volume.read(range(self.shape[0])[section])[inside])
        numbers = range(self.shape[0])[section]
        return np.stack([self.volume.read(number)[inside] for number in numbers])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def show_in_napari(napari: Any, stack: Volume, labels: Mapping[str, Volume]) -> None:
    """Open a window with the stack and a layer of labels for each mask, and return when it is closed.

    Parameters
    ----------
    napari : module
        It is not a dependency; the caller imports it.
    stack : Volume
        With a voxel size, the axes are in nanometres.
    labels : mapping of name to Volume
        Masks or instance numbers.

    Raises
    ------
    InputError
        If a mask has another shape than the stack.
    """
    for volume in labels.values():
        check_same_shape(stack, volume)
        if volume.dtype.kind == "f":
            raise InputError(
                f"{volume.name} holds {volume.dtype} values; expected a mask or instance numbers"
            )
    how: dict[str, Any] = {}
    if stack.voxel_size is not None:
        how = {"scale": stack.voxel_size, "units": ("nm", "nm", "nm")}
    viewer = napari.Viewer(title=f"mitoda: {stack.name}")
    middle = stack.read(stack.shape[0] // 2)
    low, high = (float(value) for value in np.percentile(middle, (0.5, 99.5)))
    viewer.add_image(
        LazyArray(stack), name=Path(stack.name).stem, contrast_limits=(low, max(high, low + 1e-6)), **how
    )
    for name, volume in labels.items():
        layer = viewer.add_labels(LazyArray(volume), name=name, opacity=1, **how)
        layer.contour = 2
        layer.editable = False  # what is painted could not be saved
    viewer.dims.set_point(0, stack.shape[0] // 2 * (stack.voxel_size[0] if stack.voxel_size else 1))
    viewer.scale_bar.visible = stack.voxel_size is not None
    napari.run()
