"""The weights that come with mitoda: what they say of themselves, and that they do what they say."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mitoda.benchmark.evaluation import score_weights
from mitoda.benchmark.tasks import HeldOut
from mitoda.errors import FileError
from mitoda.models.pretrained import DEFAULT, find_weights, list_weights, weights_folder
from mitoda.models.weights import WeightsInfo, read_info
from mitoda.volumes import ArrayVolume, open_labels, open_volume

MEASURED = re.compile(r"F1 (0\.\d+), IoU (0\.\d+)")
"""How a score stands in the notes of weights."""


def f1_of_sections(name: str, images: np.ndarray, labels: np.ndarray, sections: slice) -> list[float]:
    """F1 of some sections of a stack, as in the mask that `mitoda segment` writes by default."""
    size = (5.0, 5.0, 5.0)
    held_out = HeldOut(ArrayVolume(images, size), ArrayVolume(labels, size), None)
    scored = score_weights(find_weights(name), held_out, torch.device("cpu"))
    return [section.score.f1 for section in scored][sections]


def noted_f1(info: WeightsInfo) -> float:
    """F1 on lucchi:training as the metadata gives it."""
    found = MEASURED.search(info.notes["lucchi:training"])
    assert found, info.notes
    return float(found[1])


@pytest.mark.parametrize("name", list(list_weights()))
def test_bundled_weights_say_what_they_are(name):
    """Small, safe to read, and with method, source, target, licence, physical sizes and measured scores inside."""
    path = find_weights(name)
    assert path.stat().st_size < 12_000_000
    info = read_info(path)
    assert info.method
    assert info.source
    assert "CC BY-NC-SA 3.0" in info.licence
    assert info.pixel == (5.0, 5.0)
    assert info.spacing == 50.0
    assert 0.5 < noted_f1(info) < 1
    assert f"`{name}`" in (weights_folder() / "README.md").read_text(encoding="utf-8")


def test_the_default_is_bundled_and_unknown_names_list_what_there_is():
    """`segment` works without a word about weights; a misspelt name is answered with the right ones."""
    assert find_weights("default") == find_weights(DEFAULT)
    with pytest.raises(FileError, match=DEFAULT):
        find_weights("vnc3-luchi")


def test_a_run_folder_stands_for_its_weights(tmp_path):
    """`--weights run` is `run/weights.safetensors`."""
    (tmp_path / "weights.safetensors").touch()
    assert find_weights(str(tmp_path)) == Path(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", list(list_weights()))
def test_bundled_weights_find_the_mitochondria_of_a_few_real_sections(name, real_data):
    """Of a slab of Lucchi the middle sections score about as noted."""
    slab = slice(70, 111)
    volume = open_volume(real_data / "lucchi" / "training.tif")
    truth = open_labels(real_data / "lucchi" / "training_groundtruth.tif")
    images, labels = (np.stack([v.read(k) for k in range(165)[slab]]) for v in (volume, truth))
    found = f1_of_sections(name, images, labels, slice(18, 23))
    assert np.mean(found) == pytest.approx(noted_f1(read_info(find_weights(name))), abs=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(list_weights()))
def test_bundled_weights_reproduce_their_measured_scores(name, real_data):
    """All 165 sections of lucchi:training: the mean F1 over sections is the one in the metadata, to 0.002."""
    volume = open_volume(real_data / "lucchi" / "training.tif")
    truth = open_labels(real_data / "lucchi" / "training_groundtruth.tif")
    images, labels = (np.stack([v.read(k) for k in range(165)]) for v in (volume, truth))
    found = f1_of_sections(name, images, labels, slice(None))
    assert np.mean(found) == pytest.approx(noted_f1(read_info(find_weights(name))), abs=0.002)
