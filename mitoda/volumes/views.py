"""Volumes seen as grey values or as a mask: checked and converted as they are read."""

import numpy as np

from mitoda.errors import InputError
from mitoda.volumes.volume import EVERYTHING, Volume


class GreyVolume:
    """A volume whose values are checked, and on request inverted, as they are read.

    Parameters
    ----------
    volume : Volume
        uint8, uint16 or float32.
    invert : bool
        Return 255 − v, 65535 − v or −v.
    """

    def __init__(self, volume: Volume, invert: bool = False) -> None:
        self.volume = volume
        self.invert = invert
        self.name = volume.name
        self.shape = volume.shape
        self.dtype = volume.dtype
        self.voxel_size = volume.voxel_size

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `Volume.read`.

        Raises
        ------
        InputError
            If there are NaN or infinite values in that part.
        """
        values = self.volume.read(section, rows, columns)
        if self.dtype.kind == "f":
            _check_finite(values, section, self.name)
            return -values if self.invert else values
        return np.iinfo(self.dtype).max - values if self.invert else values


class LabelVolume:
    """Anything that is not zero as foreground: a mask of 0 and 1 from masks, instance numbers or
    probabilities above 0.

    Parameters
    ----------
    volume : Volume
        Of any integer, boolean or floating type.
    invert : bool
        Foreground is zero.
    """

    def __init__(self, volume: Volume, invert: bool = False) -> None:
        self.volume = volume
        self.invert = invert
        self.name = volume.name
        self.shape = volume.shape
        self.dtype = np.dtype(np.uint8)
        self.voxel_size = volume.voxel_size

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section as 0 and 1; see `Volume.read`.

        Raises
        ------
        InputError
            If there are NaN or infinite values in that part.
        """
        values = self.volume.read(section, rows, columns)
        if values.dtype.kind == "f":
            _check_finite(values, section, self.name)
        return ((values == 0) if self.invert else (values != 0)).astype(np.uint8)


def _check_finite(values: np.ndarray, section: int, name: str) -> None:
    if not np.isfinite(values).all():
        bad = values.size - int(np.isfinite(values).sum())
        raise InputError(
            f"section {section} of {name} holds {bad} values that are NaN or infinite; replace them "
            "(in Fiji: Process > Math > NaN Background, or numpy.nan_to_num)"
        )
