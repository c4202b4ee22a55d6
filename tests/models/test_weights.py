"""Weights and states on disk: round trips, and everything that is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mitoda.errors import FileError
from mitoda.models.pair_networks import build_network
from mitoda.models.weights import (
    FORMAT,
    WeightsInfo,
    load_state,
    load_weights,
    read_info,
    save_state,
    save_weights,
)
from tests.fakes import compact_weights, tiny_network

INFO = WeightsInfo(
    "compact", (4.6, 5.0), 50.0, "isc", "vnc3", "lucchi", "CC BY", 7, 1.5, 3, 0.4, notes={"F1": "0.8"}
)


def test_weights_and_what_they_say_survive_the_disk(tmp_path):
    """All tensors and all fields come back; nothing is left beside the file."""
    torch.manual_seed(0)
    network = build_network("compact")
    save_weights(tmp_path / "w.safetensors", network, INFO)
    loaded, info = load_weights(tmp_path / "w.safetensors")
    assert info == INFO == read_info(tmp_path / "w.safetensors")
    assert not loaded.training
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_half_precision_weights_are_read_in_float32(tmp_path):
    """Bundled weights are small on disk and exact to the nearest bfloat16."""
    torch.manual_seed(0)
    network = build_network("compact")
    save_weights(tmp_path / "w.safetensors", network, INFO, torch.bfloat16)
    loaded, _ = load_weights(tmp_path / "w.safetensors")
    for a, b in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b.to(torch.bfloat16).float())


class Trap:
    """Unpickling it leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_and_never_unpickled(tmp_path, zipped):
    """torch.save files, new and old, are named as what they are; the code inside does not run."""
    path, trace = tmp_path / "checkpoint.pth", tmp_path / "it-ran"
    torch.save({"state_dict": Trap(trace)}, path, _use_new_zipfile_serialization=zipped)
    for read in (read_info, load_weights):
        with pytest.raises(FileError, match="a pickled PyTorch checkpoint; mitoda reads only"):
            read(path)
    with pytest.raises(FileError, match=r"cannot be resumed.*--overwrite") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"hello, these are my weights\n" * 20, b"\0" * 100])
def test_other_files_are_no_weights(tmp_path, content):
    """Text, nothing and zeros: one line, no traceback of safetensors."""
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(FileError, match="is no safetensors file; mitoda reads only"):
        read_info(tmp_path / "w.safetensors")


def test_a_truncated_file_is_refused(tmp_path):
    """Half a download does not load."""
    compact_weights(tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match="is no safetensors file"):
        load_weights(tmp_path / "w.safetensors")


def test_tensors_of_others_and_other_formats_are_refused(tmp_path):
    """safetensors without mitoda's metadata, of a format to come, or with metadata that do not read."""
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(FileError, match=f"no mitoda metadata .format None, expected '{FORMAT}'"):
        read_info(path)
    save_file({"x": torch.zeros(1)}, path, metadata={"format": "mitoda-weights-9"})
    with pytest.raises(FileError, match="'mitoda-weights-9'"):
        read_info(path)
    for text in (
        "no json",
        "[]",
        json.dumps({"pixel": [5, 5]}),
        json.dumps({"pixel": [5, 5], "colour": "red"}),
    ):
        save_file({"x": torch.zeros(1)}, path, metadata={"format": FORMAT, "mitoda": text})
        with pytest.raises(FileError, match=r"cannot be read .*newer mitoda"):
            read_info(path)


def test_another_architecture_is_named_with_the_tensor_that_differs(tmp_path):
    """A backbone nobody has, and tensors that are not the backbone's."""
    path = tmp_path / "w.safetensors"
    save_weights(path, tiny_network(), replace(INFO, backbone="enormous"))
    with pytest.raises(FileError, match=r"backbone 'enormous'.*it has compact, codetection"):
        load_weights(path)
    save_weights(path, tiny_network(), INFO)
    with pytest.raises(FileError, match=r"another architecture's: 'body_eighth.* has shape \(.*expected"):
        load_weights(path)


def test_a_missing_file_is_missing(tmp_path):
    """With what to do."""
    with pytest.raises(FileError, match=r"no weights file .*'mitoda weights' lists"):
        read_info(tmp_path / "nothing.safetensors")
    with pytest.raises(FileError, match=r"nothing to resume in .*no state.pt.*--overwrite"):
        load_state(tmp_path / "state.pt")


def test_a_state_survives_the_disk_and_a_broken_one_is_refused(tmp_path):
    """Tensors, numbers and the random state; half of it, or another pickle, is an error of one line."""
    path = tmp_path / "state.pt"
    save_state(path, {"step": 3, "random": torch.get_rng_state(), "method": {"w": torch.ones(2)}})
    state = load_state(path)
    assert state["step"] == 3
    assert torch.equal(state["random"], torch.get_rng_state())
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FileError, match="broken and cannot be resumed") as caught:
        load_state(path)
    assert "\n" not in str(caught.value)
    save_state(path, [1])  # type: ignore[arg-type]
    with pytest.raises(FileError, match="not a state that mitoda wrote"):
        load_state(path)


@pytest.mark.parametrize(
    "failure", [RuntimeError("PytorchStreamWriter failed writing file"), OSError(28, "No space")]
)
def test_a_full_disk_keeps_what_was_saved_before(tmp_path, monkeypatch, failure):
    """torch and safetensors report it as errors of their own; the file before stays and the torso goes."""
    save_state(tmp_path / "state.pt", {"step": 3})

    def fail(state: object, path: Path) -> None:
        path.write_bytes(b"torso")
        raise failure

    monkeypatch.setattr("mitoda.models.weights.torch.save", fail)
    with pytest.raises(FileError, match="what was saved before is still there; is the disk full"):
        save_state(tmp_path / "state.pt", {"step": 4})
    assert load_state(tmp_path / "state.pt") == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_folder_that_is_gone_is_an_error_of_ours(tmp_path):
    """safetensors' own error becomes FileError."""
    with pytest.raises(FileError, match="cannot be written"):
        save_weights(tmp_path / "gone" / "w.safetensors", tiny_network(), INFO)
