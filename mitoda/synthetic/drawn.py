"""Drawn tissue as a source of training: pieces drawn when first needed, and kept on disk."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mitoda.data.pairs import LabelledPairs
from mitoda.datasets import default_dest
from mitoda.errors import InputError
from mitoda.synthetic.section import draw_piece
from mitoda.volumes.files import atomic_write
from mitoda.volumes.volume import EVERYTHING, VoxelSize, check_section

DRAWN = "drawn"
"""Name of this source; `drawn:COUNT` draws another number of pieces."""
PIECES = 400
SIDE = 704
"""Rows and columns of a piece."""
VOXEL_SIZE: VoxelSize = (50.0, 5.0, 5.0)
"""Nanometres; the two sections of a piece are 0.5 to 1.3 times as far apart."""
VERSION = 1
"""Of the files; increased with every change of what is drawn."""
_drawing = threading.Lock()


def is_drawn(spec: str) -> bool:
    """Return whether a name of a source is that of drawn tissue."""
    return spec.partition(":")[0] == DRAWN


class DrawnVolume:
    """Images, or labels, of many pieces of drawn tissue; sections 2i and 2i + 1 are those of piece i.

    Parameters
    ----------
    pieces : int
    folder : Path
        Where pieces are kept; the same pieces are the same for every run.
    labels : bool
        Read the labels, 0 and 1, instead of the images.
    """

    voxel_size: VoxelSize | None = VOXEL_SIZE
    dtype = np.dtype(np.uint8)

    def __init__(self, pieces: int, folder: Path, labels: bool = False) -> None:
        self.name = f"{DRAWN} tissue, {pieces} pieces"
        self.shape = (2 * pieces, SIDE, SIDE)
        self.folder, self.labels = folder, labels

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Return part of one section; see `Volume.read`. A piece that does not exist is drawn, in a second or two."""
        check_section(self, section)
        path = self.folder / f"{section // 2:05d}.npz"
        if not path.exists():
            with _drawing:
                if not path.exists():  # another thread may have drawn it meanwhile
                    _draw_into(path, section // 2)
        with np.load(path) as piece:
            if self.labels:
                return np.unpackbits(piece["label"][section % 2], axis=-1)[rows, columns]
            image: np.ndarray = piece["image"][section % 2][rows, columns]
            return image


def _draw_into(path: Path, number: int) -> None:
    """Draw a piece and keep it."""
    apart = np.random.default_rng(number).uniform(0.5, 1.3) * VOXEL_SIZE[0]
    image, label = draw_piece(number, SIDE, 2, (apart, *VOXEL_SIZE[1:]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez(file, image=image, label=np.packbits(label, axis=-1))


@dataclass(frozen=True)
class DrawnPairs(LabelledPairs):
    """The two sections of every piece."""

    @property
    def count(self) -> int:
        """Number of pairs."""
        return self.volume.shape[0] // 2

    def sections(self, number: int) -> tuple[int, int]:
        """Return the two sections of a pair."""
        return 2 * number, 2 * number + 1


def open_drawn(spec: str, dest: str | None = None) -> tuple[DrawnVolume, DrawnVolume]:
    """Return images and labels of drawn tissue by its name.

    Raises
    ------
    InputError
        If the number of pieces is none.
    """
    _, _, count = spec.partition(":")
    if count and not (count.isascii() and count.isdigit() and 0 < int(count) <= 10**5):
        raise InputError(f"'{spec}': expected drawn:COUNT with the number of pieces, 1 to 100,000")
    folder = (default_dest() if dest is None else Path(dest)) / f"{DRAWN}-{VERSION}"
    pieces = int(count or PIECES)
    return DrawnVolume(pieces, folder), DrawnVolume(pieces, folder, labels=True)
