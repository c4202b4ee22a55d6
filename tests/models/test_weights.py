"""Weights and states on disk: round trips, and everything that is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mitoda.benchmark.runner import score_sections
from mitoda.benchmark.tasks import HeldOut
from mitoda.errors import FileError
from mitoda.models.backbones import build_network
from mitoda.models.model import load_model
from mitoda.models.weights import (
    DEFAULT_WEIGHTS,
    FORMAT,
    ThinSections,
    WeightsInfo,
    find_weights,
    list_weights,
    load_state,
    load_weights,
    read_info,
    save_state,
    save_weights,
    weights_folder,
)
from mitoda.volumes import ArrayVolume, open_labels, open_volume
from tests.fakes import compact_weights, tiny_network

INFO = WeightsInfo(
    "compact",
    (4.6, 5.0),
    50.0,
    "isc",
    "vnc3",
    "lucchi",
    "CC BY",
    "7",
    1,
    3,
    0,
    thin=ThinSections(0.6, snap=True),
    notes={"F1": "0.8"},
)


def test_weights_and_metadata_survive_the_disk(tmp_path):
    """All tensors and all fields come back; nothing else is left in the folder."""
    torch.manual_seed(0)
    network = build_network("compact")
    save_weights(tmp_path / "w.safetensors", network, INFO)
    loaded, info = load_weights(tmp_path / "w.safetensors")
    assert info == INFO == read_info(tmp_path / "w.safetensors")
    assert not loaded.training
    tensors = zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_half_precision_weights_are_read_in_float32(tmp_path):
    """Weights of two bytes a value are read exactly."""
    torch.manual_seed(0)
    network = build_network("compact")
    save_weights(tmp_path / "w.safetensors", network, INFO, torch.bfloat16)
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b.to(torch.bfloat16).float())


class Trap:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_never_unpickled(tmp_path, zipped):
    """The message says that it is a torch.save file, old or new; the code inside does not run."""
    path, trace = tmp_path / "checkpoint.pth", tmp_path / "it-ran"
    torch.save({"state_dict": Trap(trace)}, path, _use_new_zipfile_serialization=zipped)
    for read in (read_info, load_weights):
        with pytest.raises(FileError, match=r"is a pickled PyTorch checkpoint .*mitoda reads only"):
            read(path)
    with pytest.raises(FileError, match=r"cannot be resumed.*--overwrite") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello, these are my weights\n" * 20, b"\0" * 100, None])
def test_other_and_truncated_files_are_not_weights(tmp_path, content):
    """Nothing, text, zeros and half of a weights file."""
    path = tmp_path / "w.safetensors"
    compact_weights(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(FileError, match="is not a safetensors file"):
        load_weights(path)


@pytest.mark.parametrize("stored", [None, "mitoda-weights-9"])
def test_safetensors_of_another_format_are_refused(tmp_path, stored):
    """Both formats are in the message."""
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"format": stored} if stored else None)
    with pytest.raises(FileError, match=f"no mitoda metadata .format {stored!r}, expected '{FORMAT}'"):
        read_info(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colour": "red"}, r"'colour'.*another version of mitoda"),
        ({"pixel": [5]}, r"'pixel\.1'"),
        ({"pixel": [5, float("nan")]}, r"'pixel\.1'"),
        ({"spacing": -1}, "'spacing'"),
        ({"spacing": [1]}, "'spacing'"),
        ({"threshold": 1}, "'threshold'"),
        ({"thin": {"threshold": 2, "snap": True}}, r"'thin\.threshold'"),
        ({"smoothing": float("inf")}, "'smoothing'"),
        ({"smallest": None}, "'smallest'"),
        ({"source": "x" * 100_001}, "'source'"),
        ({"notes": {"F1": 0.8}}, r"'notes\.F1'"),
    ],
)
def test_metadata_out_of_range_are_refused_by_field(tmp_path, change, named):
    """Wrong types, lengths that are not positive or not finite, and fields of a newer mitoda."""
    path = tmp_path / "w.safetensors"
    text = json.dumps({**asdict(INFO), **change})
    save_file({"x": torch.zeros(1)}, path, metadata={"format": FORMAT, "mitoda": text})
    with pytest.raises(FileError, match=rf"the metadata of .* is not a valid record: field {named}"):
        read_info(path)


@pytest.mark.parametrize("text", ["no json", "[]", "[" * 100_000, "", None])
def test_metadata_that_are_no_record_are_refused(tmp_path, text):
    """No JSON, a list, 100,000 lists in each other, and none at all."""
    path = tmp_path / "w.safetensors"
    metadata = {"format": FORMAT} if text is None else {"format": FORMAT, "mitoda": text}
    save_file({"x": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(FileError, match="is not a valid record: the content"):
        read_info(path)


def test_tensors_that_do_not_fit_the_backbone_are_refused(tmp_path):
    """An unknown backbone, and tensors of another network."""
    path = tmp_path / "w.safetensors"
    save_weights(path, tiny_network(), replace(INFO, backbone="enormous"))
    with pytest.raises(FileError, match=r"backbone 'enormous'.*it has compact, codetection.*newer mitoda"):
        load_weights(path)
    save_weights(path, tiny_network(), INFO)
    with pytest.raises(FileError, match=r"'compact': tensor 'body_eighth.* has shape \(.*expected"):
        load_weights(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 7])
def test_tensors_that_are_not_finite_floating_point_are_refused(tmp_path, value):
    """Such weights would give an empty mask; the tensor is named."""
    path = tmp_path / "w.safetensors"
    compact_weights(path)
    tensors = load_file(path)
    name = "encoder_fine.0.weight"
    tensors[name] = torch.full(tensors[name].shape, value)
    save_file(tensors, path, metadata={"format": FORMAT, "mitoda": json.dumps(asdict(INFO))})
    with pytest.raises(FileError, match=f"is damaged: tensor '{name}' holds (NaN or infinite|torch.int64)"):
        load_weights(path)


def test_a_missing_file_says_what_to_do(tmp_path):
    """`mitoda weights` for weights, --overwrite for a run without a state."""
    with pytest.raises(FileError, match=r"no weights file .*'mitoda weights' lists"):
        read_info(tmp_path / "nothing.safetensors")
    with pytest.raises(FileError, match=r"cannot be resumed: it has no state.pt.*--overwrite"):
        load_state(tmp_path / "state.pt")


def test_a_state_survives_the_disk_and_a_damaged_one_is_refused(tmp_path):
    """Tensors, numbers and the random state; half of it, or another pickle, is an error of one line."""
    path = tmp_path / "state.pt"
    save_state(path, {"step": 3, "random": torch.get_rng_state(), "method": {"w": torch.ones(2)}})
    state = load_state(path)
    assert state["step"] == 3
    assert torch.equal(state["random"], torch.get_rng_state())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileError, match="is damaged and cannot be resumed") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)
    save_state(path, [1])  # type: ignore[arg-type]
    with pytest.raises(FileError, match="was not written by mitoda"):
        load_state(path)


@pytest.mark.parametrize(
    "failure", [RuntimeError("PytorchStreamWriter failed\nwriting file"), OSError(28, "No space left")]
)
def test_a_full_disk_keeps_the_earlier_state(tmp_path, monkeypatch, failure):
    """Whichever error torch raises, it becomes one line, and nothing is left of the new state."""
    save_state(tmp_path / "state.pt", {"step": 3})

    def fail(state: object, path: Path) -> None:
        path.write_bytes(b"torso")
        raise failure

    monkeypatch.setattr("mitoda.models.weights.torch.save", fail)
    with pytest.raises(
        FileError, match=r"cannot be written \(.*; its earlier content is unchanged"
    ) as caught:
        save_state(tmp_path / "state.pt", {"step": 4})
    assert "\n" not in str(caught.value)
    assert load_state(tmp_path / "state.pt") == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_missing_folder_is_named(tmp_path):
    """Writing weights into it is a FileError."""
    with pytest.raises(FileError, match=r"gone.*cannot be written"):
        save_weights(tmp_path / "gone" / "w.safetensors", tiny_network(), INFO)


def noted_f1(info: WeightsInfo) -> float:
    """F1 on lucchi:training in the notes of weights: "F1 0.9215, IoU 0.8548 (…)"."""
    return float(info.notes["lucchi:training"].split(",")[0].removeprefix("F1 "))


@pytest.mark.parametrize("name", list(list_weights()))
def test_pretrained_weights_state_their_origin(name):
    """Half precision, with method, source, licence, physical sizes and measured scores inside."""
    path = find_weights(name)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    info = read_info(path)
    assert info.method
    assert info.source
    assert "CC BY-NC-SA 3.0" in info.licence
    assert info.pixel == (5.0, 5.0)
    assert info.spacing == 50.0
    assert 0.5 < noted_f1(info) < 1
    assert f"`{name}`" in (weights_folder() / "README.md").read_text(encoding="utf-8")


def test_an_unknown_name_lists_the_pretrained_weights():
    """ "default" is one of them."""
    assert find_weights("default") == find_weights(DEFAULT_WEIGHTS)
    with pytest.raises(FileError, match=DEFAULT_WEIGHTS):
        find_weights("vnc3-luchi")


@pytest.mark.parametrize(
    ("sections", "scored", "tolerance"),
    [
        pytest.param(slice(70, 111), slice(18, 23), 0.08, id="few"),
        pytest.param(slice(None), slice(None), 0.002, id="all", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("name", list(list_weights()))
def test_pretrained_weights_reproduce_their_measured_scores(name, sections, scored, tolerance, real_data):
    """On lucchi:training the mean F1 over sections is the one in the notes; on a few sections, about that."""
    volume = open_volume(real_data / "lucchi" / "training.tif")
    truth = open_labels(real_data / "lucchi" / "training_groundtruth.tif")
    images, labels = (
        ArrayVolume(np.stack([v.read(k) for k in range(165)[sections]]), (5.0, 5.0, 5.0))
        for v in (volume, truth)
    )
    results = score_sections(load_model(name, "cpu"), HeldOut(images, labels, None))
    found = [result.score.f1 for result in results][scored]
    assert np.mean(found) == pytest.approx(noted_f1(read_info(find_weights(name))), abs=tolerance)
