"""The real vnc3 and Lucchi files: from a folder, and from a server on loopback that fails."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mitoda.datasets import FetchEvent, fetch_dataset, resolve
from mitoda.errors import FileError
from mitoda.volumes import Volume, open_labels, open_volume

RAW_SHA256 = "b845f8b459993f5ca6135daba76a4069bdddca65770f5171f4c3518765f391da"
MASK_SHA256 = "502dcd26f36c7d058b562bc5d336dc8f5cfd25f40c92d795f6bf8b006aa4eafc"

Serve = Callable[[Path], Any]


def array_sha256(volume: Volume) -> str:
    """Hash a volume's array in C order."""
    digest = hashlib.sha256()
    for section in range(volume.shape[0]):
        digest.update(np.ascontiguousarray(volume.read(section)).tobytes())
    return digest.hexdigest()


def half_written(dest: Path) -> list[Path]:
    """Return files that are neither complete products nor downloads, complete or to be continued."""
    allowed = {"volume.tif", "mask.tif", "dataset.json"}
    return [
        file
        for file in dest.rglob("*")
        if file.is_file() and file.name not in allowed and "stack1" not in file.parts
    ]


def assert_vnc3_is_golden(dest: Path) -> None:
    found = resolve("vnc3", dest)
    assert found.mask is not None
    volume, mask = open_volume(found.volume), open_labels(found.mask)
    assert volume.shape == mask.shape == (20, 1024, 1024)
    assert volume.dtype == np.uint8
    assert volume.voxel_size == mask.voxel_size == (50.0, 4.6, 4.6)
    assert array_sha256(volume) == RAW_SHA256
    assert array_sha256(mask) == MASK_SHA256
    assert np.unique(open_volume(found.mask).read(1)).tolist() == [0, 255]


def test_vnc3_from_a_folder_is_golden(real_data: Path, tmp_path: Path) -> None:
    """vnc3 taken from files at hand gives the known array hashes, the three 1-bit masks included."""
    events = list(fetch_dataset("vnc3", tmp_path, source_dir=real_data))
    assert_vnc3_is_golden(tmp_path)
    assert events[-1].kind == "done"
    verified = [event for event in events if event.kind == "verified"]
    assert len(verified) == 40
    assert all("sha256 matches (verified: " in event.message for event in verified)
    assert sorted(path.name for path in (tmp_path / "vnc3").iterdir()) == ["dataset.json", "stack1"]
    record = json.loads((tmp_path / "vnc3" / "dataset.json").read_text())
    assert record["products"]["stack1/mask.tif"]["array_sha256"] == MASK_SHA256
    assert record["licence"].startswith("CC BY-NC-SA 3.0")
    assert len(record["files"]) == 40


def test_vnc3_from_its_own_folder(real_data: Path, tmp_path: Path) -> None:
    """--from may also name the folder of the data set itself."""
    list(fetch_dataset("vnc3", tmp_path, source_dir=real_data / "vnc3"))
    assert_vnc3_is_golden(tmp_path)


def test_vnc3_from_a_server_once(real_data: Path, tmp_path: Path, serve: Serve) -> None:
    """A mirror gives the same arrays; a second call asks it for nothing; a damaged mask is made anew."""
    server = serve(real_data)
    list(fetch_dataset("vnc3", tmp_path, mirror=server.url))
    assert_vnc3_is_golden(tmp_path)
    assert len(server.requests) == 40
    assert not (tmp_path / "vnc3" / "downloads").exists()

    events = list(fetch_dataset("vnc3", tmp_path, mirror=server.url))
    assert [event.kind for event in events] == ["checking", "done"]
    assert len(server.requests) == 40

    mask = tmp_path / "vnc3" / "stack1" / "mask.tif"
    mask.write_bytes(mask.read_bytes()[:-1] + b"\0")
    list(fetch_dataset("vnc3", tmp_path, mirror=server.url))
    assert_vnc3_is_golden(tmp_path)
    assert len(server.requests) == 60  # the 20 masks only


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            "truncated",
            r"raw/07.tif: the connection broke after [\d,]+ of 1,048,734 bytes; fetch again, or",
        ),
        ("cut", r"raw/07.tif: the connection broke after|raw/07.tif cannot be reached"),
        (
            "complete half",
            r"raw/07.tif has the sha256 .*, expected 5a0611902a45.* \(verified: .*; fetch again, or",
        ),
        (
            "other bytes",
            r"raw/07.tif has the sha256 .*, expected 5a0611902a45.* \(verified: .*; fetch again, or",
        ),
        (
            "web page",
            r"raw/07.tif is not a TIFF file: it looks like a web page",
        ),
        (
            "404",
            r"vnc3:stack1 has no images: stack1/raw/07.tif is missing .*HTTP 404.*; fetch again, or",
        ),
        ("503", r"raw/07.tif was refused \(HTTP 503 Service Unavailable\); fetch again"),
    ],
)
def test_vnc3_recovers_from_a_failing_server(
    real_data: Path, tmp_path: Path, serve: Serve, fault: str, sentence: str
) -> None:
    """Each failure is one clear sentence, leaves nothing half-written, and the next call goes on from it."""
    server = serve(real_data)
    server.faults = {f"{base}stack1/raw/07.tif": fault for base in ("/vnc3/", "/")}
    with pytest.raises(FileError, match=sentence):
        list(fetch_dataset("vnc3", tmp_path, mirror=server.url))
    assert half_written(tmp_path) == []
    assert not list(tmp_path.rglob("07.tif"))
    assert len(list(tmp_path.rglob("*.partial"))) <= (fault in ("truncated", "cut"))
    with pytest.raises(FileError, match="run: mitoda fetch vnc3"):
        resolve("vnc3", tmp_path)

    server.faults.clear()
    server.requests.clear()
    list(fetch_dataset("vnc3", tmp_path, mirror=server.url))
    assert_vnc3_is_golden(tmp_path)
    assert "/vnc3/stack1/raw/06.tif" not in server.requests  # it was complete and verified


def test_vnc3_without_a_server(real_data: Path, tmp_path: Path, serve: Serve) -> None:
    """A refused connection is an error that says so, and nothing stays behind."""
    server = serve(real_data)
    server.close()
    with pytest.raises(FileError, match=r"cannot be reached \(Connection refused\); check the network"):
        list(fetch_dataset("vnc3", tmp_path, mirror=server.url))
    assert list(tmp_path.rglob("*")) == []
    server.close = lambda: None


def test_a_damaged_local_file_is_refused_and_kept(real_data: Path, tmp_path: Path) -> None:
    """A file of --from with another hash is an error with both hashes; the person's file is not touched."""
    for file in (real_data / "vnc3" / "stack1").rglob("*.*"):
        copy = tmp_path / "mine" / file.relative_to(real_data / "vnc3")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    damaged = tmp_path / "mine" / "stack1" / "raw" / "03.tif"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    with pytest.raises(
        FileError, match=r"03.tif has the sha256 [0-9a-f]{64}, expected 1d6ca42fad.*\(verified: "
    ):
        list(fetch_dataset("vnc3", tmp_path / "dest", source_dir=tmp_path / "mine"))
    assert damaged.exists()
    assert list((tmp_path / "dest").rglob("*")) == []


def test_a_folder_without_some_label_files_is_an_error(real_data: Path, tmp_path: Path) -> None:
    """Half a set of labels is an incomplete copy, not an unlabelled volume."""
    for file in (real_data / "vnc3" / "stack1").rglob("*.*"):
        if file.name != "07.png":
            link = tmp_path / "mine" / file.relative_to(real_data / "vnc3")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    with pytest.raises(FileError, match=r"lacks 1 of 20 label files: stack1/mitochondria/07.png"):
        list(fetch_dataset("vnc3", tmp_path / "dest", source_dir=tmp_path / "mine"))
    assert resolve("vnc3", tmp_path / "dest").mask is None  # the images were complete


def test_lucchi_from_a_server(real_data: Path, tmp_path: Path, serve: Serve) -> None:
    """Lucchi comes as the mirror has it: both volumes, training's labels, a warning for testing's."""
    server = serve(real_data)
    events: list[FetchEvent] = list(fetch_dataset("lucchi", tmp_path, mirror=server.url))
    warnings = [event.message for event in events if event.kind == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith("lucchi:testing has no labels here; it can serve as a target (missing: ")
    assert "/lucchi/testing_groundtruth.tif does not exist (HTTP 404)" in warnings[0]
    progress = [event for event in events if event.kind == "progress" and event.file == "training.tif"]
    assert all(0 <= event.done <= (event.total or event.done) for event in progress)

    training, testing = resolve("lucchi:training", tmp_path), resolve("lucchi:testing", tmp_path)
    assert testing.mask is None
    assert training.mask is not None
    volume, mask = open_volume(training.volume), open_labels(training.mask)
    assert volume.shape == mask.shape == open_volume(testing.volume).shape == (165, 768, 1024)
    assert volume.voxel_size == (5.0, 5.0, 5.0)
    original = open_volume(real_data / "lucchi" / "training.tif")
    labels = open_labels(real_data / "lucchi" / "training_groundtruth.tif")
    for section in (0, 82, 164):
        np.testing.assert_array_equal(volume.read(section), original.read(section))
        np.testing.assert_array_equal(mask.read(section), labels.read(section))
    record = json.loads((tmp_path / "lucchi" / "dataset.json").read_text())
    assert "a copy of 97,006,259 bytes; 129,919,357 are published" in record["files"]["training.tif"]["check"]
    assert half_written(tmp_path) == []

    server.requests.clear()
    events = list(fetch_dataset("lucchi", tmp_path, mirror=server.url))
    assert [event.kind for event in events] == ["checking", "checking", "file", "warning", "done"]
    assert all("testing_groundtruth" in path for path in server.requests)


def test_cdeep3m_has_two_labelled_splits(real_data: Path, tmp_path: Path, serve: Serve) -> None:
    """20 and 10 sections with labels, 8.8 % and 7.6 % of them mitochondria; the warning says the size is inferred."""
    events = list(fetch_dataset("cdeep3m", tmp_path, mirror=serve(real_data).url))
    warnings = [event.message for event in events if event.kind == "warning"]
    assert len(warnings) == 1
    assert "is inferred from a path" in warnings[0]
    for split, first, depth, share in (("training", 10, 20, 0.0879), ("validation", 50, 10, 0.0755)):
        found = resolve(f"cdeep3m:{split}", tmp_path)
        assert found.mask is not None
        volume, mask = open_volume(found.volume), open_labels(found.mask)
        assert volume.shape == mask.shape == (depth, 1024, 1024)
        assert volume.voxel_size == mask.voxel_size == (40.0, 5.9, 5.9)
        assert np.mean([mask.read(z).mean() for z in range(depth)]) == pytest.approx(share, abs=5e-5)
        folder = real_data / "cdeep3m" / "mito_testsample" / split
        for z in (0, depth - 1):
            image = Image.open(folder / "images" / f"images.{first + z:03d}.png")
            labels = Image.open(folder / "labels" / f"mitos_3D.{first + z:03d}.png")
            np.testing.assert_array_equal(volume.read(z), np.asarray(image))
            np.testing.assert_array_equal(mask.read(z), np.asarray(labels.convert("L")) == 1)


def test_fib25_is_a_target(real_data: Path, tmp_path: Path) -> None:
    """128 sections in the order of their numbers, without labels."""
    list(fetch_dataset("fib25", tmp_path, source_dir=real_data))
    found = resolve("fib25", tmp_path)
    assert found.mask is None
    volume = open_volume(found.volume)
    assert volume.shape == (128, 250, 250)
    assert volume.voxel_size == (10.0, 10.0, 10.0)
    for z in (0, 127):
        image = real_data / "fib25" / "training_sample2" / "grayscale_maps" / f"iso.{2600 + z}.png"
        np.testing.assert_array_equal(volume.read(z), np.asarray(Image.open(image)))
