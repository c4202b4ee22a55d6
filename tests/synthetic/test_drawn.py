"""Drawn tissue as a source of training."""

from pathlib import Path

import numpy as np
import pytest

from mitoda.errors import InputError
from mitoda.synthetic import drawn
from mitoda.synthetic.drawn import DrawnPairs, is_drawn, open_drawn


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of 64 × 64 pixels."""
    monkeypatch.setattr(drawn, "SIDE", 64)


def test_pieces_are_drawn_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece is drawn when first read, by images or labels; later reads take the file."""
    images, labels = open_drawn("drawn:3", str(tmp_path))
    image = images.read(4)
    assert [path.name for path in (tmp_path / "drawn-1").iterdir()] == ["00002.npz"]
    monkeypatch.setattr(drawn, "draw_piece", lambda *arguments: pytest.fail("drawn again"))
    np.testing.assert_array_equal(images.read(4, slice(10, 20), slice(5, 9)), image[10:20, 5:9])
    assert set(labels.read(5).flat) <= {0, 1}
    assert labels.read(5).shape == (64, 64)


def test_sections_of_a_pair_are_of_one_piece(tmp_path: Path) -> None:
    """Pair i is the two sections of piece i; the last section of one piece and the next piece are never paired."""
    images, labels = open_drawn("drawn:3", str(tmp_path))
    pairs = DrawnPairs(images, 1, labels=labels)
    assert [pairs.sections(number) for number in range(pairs.count)] == [(0, 1), (2, 3), (4, 5)]


@pytest.mark.parametrize("spec", ["drawn:0", "drawn:x", "drawn:-1", "drawn:²"])
def test_a_wrong_number_of_pieces_is_refused(spec: str) -> None:
    """The message says how the number is written."""
    with pytest.raises(InputError, match="expected drawn:COUNT"):
        open_drawn(spec)


def test_only_drawn_is_drawn() -> None:
    """Files whose names begin alike are files."""
    assert is_drawn("drawn")
    assert is_drawn("drawn:20")
    assert not is_drawn("drawn.tif:mask.tif")
    assert not is_drawn("vnc3")
