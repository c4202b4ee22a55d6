"""Fetching stacks without a known hash, like lucchi: what decides then, what is recorded, what is refused."""

import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import tifffile

from mitoda.datasets import DATASETS, Dataset, download, fetch_dataset, resolve
from mitoda.errors import FileError, InputError

Serve = Callable[[Path], Any]
SHAPE = (3, 20, 30)
NAMES = ("training", "testing")


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """Write four small stacks as lucchi publishes them and return their folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    for seed, name in enumerate(NAMES):
        volume = np.random.default_rng(seed).integers(1, 255, SHAPE, dtype=np.uint8)
        tifffile.imwrite(folder / f"{name}.tif", volume, photometric="minisblack")
        labels = (volume > 128) * np.uint8(255)
        tifffile.imwrite(folder / f"{name}_groundtruth.tif", labels, photometric="minisblack")
    return folder


def small_lucchi(served: Path, url: str) -> Dataset:
    """Return lucchi with the addresses, sizes and shape of the small stacks."""
    entry = DATASETS["lucchi"]
    files = tuple(
        replace(file, urls=(f"{url}/{file.path}",), size=(served / file.path).stat().st_size)
        for file in entry.files
    )
    return replace(entry, files=files, splits={n: replace(s, shape=SHAPE) for n, s in entry.splits.items()})


def leftovers(dest: Path) -> list[str]:
    """Return all files that are neither products, records nor complete downloads."""
    complete = {f"{name}{suffix}.tif" for name in NAMES for suffix in ("", "_groundtruth")}
    complete |= {"volume.tif", "mask.tif", "dataset.json"}
    return [str(path) for path in dest.rglob("*") if path.is_file() and path.name not in complete]


def test_published_files_are_recorded_at_first_use(tmp_path: Path, served: Path, serve: Serve) -> None:
    """Without a published hash the size decides at once, and sha256 and origin go into dataset.json."""
    server = serve(served)
    entry = small_lucchi(served, server.url)
    list(fetch_dataset(entry, tmp_path))
    record = json.loads((tmp_path / "lucchi/dataset.json").read_text())
    assert record["files"]["training.tif"]["origin"] == f"{server.url}/training.tif"
    assert len(record["files"]["training.tif"]["sha256"]) == 64
    assert record["citation"] == DATASETS["lucchi"].citation
    assert resolve("lucchi:testing", tmp_path).mask is not None


def test_changed_file_at_the_same_address_is_refused(tmp_path: Path, served: Path, serve: Serve) -> None:
    """When a converted file is lost and its source serves other bytes of the same size, fetching stops."""
    server = serve(served)
    entry = small_lucchi(served, server.url)
    list(fetch_dataset(entry, tmp_path))
    (tmp_path / "lucchi/training/volume.tif").unlink()
    server.faults["/training.tif"] = "other bytes"
    with pytest.raises(
        FileError, match=r"has changed since it was first fetched: sha256 .*, recorded .*; if the"
    ):
        list(fetch_dataset(entry, tmp_path))
    assert leftovers(tmp_path / "lucchi") == []
    events = list(fetch_dataset(entry, tmp_path, mirror=serve(served).url))
    assert not [event for event in events if event.kind == "warning"]  # another place, the same bytes


def test_another_copy_from_another_place_is_a_warning(tmp_path: Path, served: Path, serve: Serve) -> None:
    """A recompressed copy from a mirror is taken, with a warning: shape, type and values decide."""
    list(fetch_dataset(small_lucchi(served, serve(served).url), tmp_path))
    entry = small_lucchi(served, "http://127.0.0.1:9")
    (tmp_path / "lucchi/training/volume.tif").unlink()
    copy = tmp_path / "copy"
    copy.mkdir()
    stack = tifffile.imread(served / "training.tif")
    tifffile.imwrite(copy / "training.tif", stack, photometric="minisblack", compression="zlib")
    events = list(fetch_dataset(entry, tmp_path, mirror=serve(copy).url))
    warnings = [event.message for event in events if event.kind == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith("lucchi/training.tif differs from the file fetched first, from http://")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("truncated", r"training.tif: the connection broke after [\d,]+ of"),
        ("cut", "training.tif: the connection broke after|training.tif cannot be reached"),
        (
            "complete half",
            r"training.tif sent [\d,]+ bytes, expected [\d,]+; fetch again",
        ),
        ("web page", "training.tif is not a TIFF file: it looks like a web page"),
        ("500", r"training.tif was refused \(HTTP 500 Internal Server Error\)"),
    ],
)
def test_failures_without_a_hash(
    tmp_path: Path, served: Path, serve: Serve, fault: str, sentence: str
) -> None:
    """Size and first bytes catch what a hash would; only a part to continue stays, and the next call recovers."""
    server = serve(served)
    entry = small_lucchi(served, server.url)
    server.faults["/training.tif"] = fault
    with pytest.raises(FileError, match=sentence):
        list(fetch_dataset(entry, tmp_path / "dest"))
    left = [path.name for path in (tmp_path / "dest").rglob("*") if path.is_file()]
    assert len(left) <= (fault in ("truncated", "cut"))
    assert all(name.endswith(".partial") for name in left)
    server.faults.clear()
    list(fetch_dataset(entry, tmp_path / "dest"))
    assert resolve("lucchi", tmp_path / "dest").mask is not None


def test_half_a_file_from_a_mirror_goes_when_it_cannot_be_converted(
    tmp_path: Path, served: Path, serve: Serve
) -> None:
    """A mirror promises no size: a stack cut short is caught by conversion, removed, and fetched again."""
    server = serve(served)
    entry = small_lucchi(served, "http://127.0.0.1:9")
    server.faults = {"/lucchi/training.tif": "complete half", "/training.tif": "complete half"}
    with pytest.raises((FileError, InputError), match=r"training"):
        list(fetch_dataset(entry, tmp_path / "dest", mirror=server.url))
    assert list((tmp_path / "dest").rglob("*")) == []
    server.faults.clear()
    list(fetch_dataset(entry, tmp_path / "dest", mirror=server.url))
    assert resolve("lucchi:testing", tmp_path / "dest").mask is not None


def test_missing_images_do_not_spoil_the_other_split(tmp_path: Path, served: Path, serve: Serve) -> None:
    """Missing images are an error, after the other split has been made ready."""
    (served / "training.tif").rename(served / "gone")
    server = serve(served)
    entry = small_lucchi_without_size(server.url)
    with pytest.raises(
        FileError, match=r"lucchi:training has no images: training.tif is missing \(.*HTTP 404"
    ):
        list(fetch_dataset(entry, tmp_path))
    assert resolve("lucchi:testing", tmp_path).mask is not None
    with pytest.raises(FileError, match="run: mitoda fetch lucchi"):
        resolve("lucchi:training", tmp_path)
    (served / "gone").rename(served / "training.tif")
    list(fetch_dataset(entry, tmp_path))
    assert resolve("lucchi:training", tmp_path).mask is not None


def small_lucchi_without_size(url: str) -> Dataset:
    entry = DATASETS["lucchi"]
    files = tuple(
        replace(file, urls=(f"{url}/{file.path}",), size=10_000, is_size_exact=False) for file in entry.files
    )
    return replace(entry, files=files, splits={n: replace(s, shape=SHAPE) for n, s in entry.splits.items()})


def test_labels_that_come_later_are_added(tmp_path: Path, served: Path, serve: Serve) -> None:
    """A volume without labels gets them at the next fetch that finds some; its images are not read again."""
    server = serve(served)
    labels = served / "testing_groundtruth.tif"
    labels.rename(served / "later")
    entry = small_lucchi_without_size(server.url)
    events = list(fetch_dataset(entry, tmp_path))
    assert next(event.message for event in events if event.kind == "warning").startswith(
        "lucchi:testing has no labels here; it can serve as a target"
    )
    assert resolve("lucchi:testing", tmp_path).mask is None
    (served / "later").rename(labels)
    server.requests.clear()
    list(fetch_dataset(entry, tmp_path))
    assert server.requests == ["/testing_groundtruth.tif"]
    assert resolve("lucchi:testing", tmp_path).mask is not None


def test_a_damaged_mask_without_a_source_is_an_error(tmp_path: Path, served: Path, serve: Serve) -> None:
    """A mask that is not as recorded never passes silently for the labels."""
    entry = small_lucchi_without_size(serve(served).url)
    list(fetch_dataset(entry, tmp_path))
    (served / "testing_groundtruth.tif").unlink()
    mask = tmp_path / "lucchi/testing/mask.tif"
    mask.write_bytes(b"x")
    with pytest.raises(FileError, match=r"mask.tif has changed since it was made, and its source is missing"):
        list(fetch_dataset(entry, tmp_path))


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (np.full(SHAPE, 7, np.uint8), "contain the values 7; expected 0, 255 or 0, 1"),
        (np.zeros(SHAPE, np.uint8), "contain no mitochondrion: no value is above 0; this is the wrong file"),
        (np.ones((2, 20, 30), np.uint8), "there are 2 sections, expected 3"),
        (np.ones((4, 20, 30), np.uint8), "there are more than the 3 sections expected"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, served: Path, labels: np.ndarray, sentence: str) -> None:
    """Values other than two levels, empty masks and other depths are refused; no mask appears."""
    tifffile.imwrite(served / "training_groundtruth.tif", labels, photometric="minisblack")
    entry = small_lucchi_without_size("http://127.0.0.1:9")
    with pytest.raises(InputError, match=sentence):
        list(fetch_dataset(entry, tmp_path, source_dir=served))
    assert resolve("lucchi", tmp_path).mask is None
    assert leftovers(tmp_path / "lucchi") == []


def test_wrong_type_is_refused(tmp_path: Path, served: Path) -> None:
    """16-bit images are not what lucchi publishes."""
    tifffile.imwrite(served / "training.tif", np.ones(SHAPE, np.uint16), photometric="minisblack")
    with pytest.raises(
        InputError, match="the volume of lucchi:training has values of type uint16; expected uint8"
    ):
        list(fetch_dataset(small_lucchi_without_size("http://127.0.0.1:9"), tmp_path, source_dir=served))


def test_labels_of_0_and_1_become_0_and_255(tmp_path: Path, served: Path) -> None:
    """A copy whose labels are 0 and 1 gives the same mask."""
    labels = tifffile.imread(served / "training_groundtruth.tif")
    tifffile.imwrite(served / "training_groundtruth.tif", labels // 255, photometric="minisblack")
    list(fetch_dataset(small_lucchi_without_size("http://127.0.0.1:9"), tmp_path, source_dir=served))
    found = resolve("lucchi", tmp_path)
    np.testing.assert_array_equal(tifffile.imread(found.mask), labels)


def test_from_a_folder_nothing_is_downloaded(tmp_path: Path, served: Path, serve: Serve) -> None:
    """--from asks no server; with --mirror beside it only what the folder lacks is asked for."""
    server = serve(served)
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("training.tif", "training_groundtruth.tif"):
        (mine / name).write_bytes((served / name).read_bytes())
    entry = small_lucchi_without_size(server.url)
    with pytest.raises(
        FileError, match=r"lucchi:testing has no images: testing.tif is missing \(.*mine/testing"
    ):
        list(fetch_dataset(entry, tmp_path / "a", source_dir=mine))
    assert server.requests == []
    list(fetch_dataset(entry, tmp_path / "b", source_dir=mine, mirror=server.url))
    assert {Path(path).name for path in server.requests} == {"testing.tif", "testing_groundtruth.tif"}


def test_no_room_is_said_before_anything_is_downloaded(tmp_path: Path, served: Path, serve: Serve) -> None:
    """A data set that the disk cannot hold is refused with both sizes and the way out."""
    server = serve(served)
    entry = small_lucchi_without_size(server.url)
    entry = replace(entry, files=tuple(replace(file, size=10**17) for file in entry.files))
    sentence = (
        r"lucchi needs about 400000000.0 GB in .* GB is free; make room, or choose another folder with --dest"
    )
    with pytest.raises(FileError, match=sentence):
        list(fetch_dataset(entry, tmp_path))
    assert server.requests == []


def test_stopping_half_way_leaves_nothing(tmp_path: Path, served: Path, serve: Serve) -> None:
    """A consumer that stops while sections are written leaves no partial file, and the next call goes on."""
    entry = small_lucchi_without_size(serve(served).url)
    events = fetch_dataset(entry, tmp_path / "dest")
    for event in events:
        if event.kind == "converting" and event.done == 2:
            break
    assert list((tmp_path / "dest/lucchi").glob(".partial/*"))
    events.close()
    assert leftovers(tmp_path / "dest") == []
    list(fetch_dataset(entry, tmp_path / "dest"))
    assert resolve("lucchi", tmp_path / "dest").mask is not None


def test_what_a_killed_process_left_is_removed(tmp_path: Path, served: Path) -> None:
    """Partial files go at the next fetch; a complete download that waits is used."""
    root = tmp_path / "lucchi"
    left = (
        ".partial/volume.tif.partial",
        "dataset.json.partial",
        "downloads/ab/training.tif.partial",
        "downloads/ab/training.tif.0123456789ab.partial",
        ".lock",
    )
    for name in left:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    list(fetch_dataset(small_lucchi_without_size("http://127.0.0.1:9"), tmp_path, source_dir=served))
    assert sorted(path.name for path in root.iterdir()) == ["dataset.json", "testing", "training"]


def test_a_broken_download_goes_on_where_it_stopped(
    tmp_path: Path, served: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second fetch asks for the other half only, and the file is the same as in one piece."""
    monkeypatch.setattr(download, "CHUNK", 1)
    server = serve(served)
    entry = small_lucchi(served, server.url)
    server.faults["/training.tif"] = "truncated"
    with pytest.raises(FileError, match=r"the connection broke after"):
        list(fetch_dataset(entry, tmp_path))
    server.faults.clear()
    list(fetch_dataset(entry, tmp_path))
    assert server.sent["/training.tif"] == (served / "training.tif").stat().st_size
    volume = tifffile.imread(resolve("lucchi", tmp_path).volume)
    np.testing.assert_array_equal(volume, tifffile.imread(served / "training.tif"))
    assert leftovers(tmp_path / "lucchi") == []


def test_halves_of_two_versions_are_not_joined(tmp_path: Path, served: Path, serve: Serve) -> None:
    """If the server's file has changed since the download broke, it is downloaded as a whole."""
    server = serve(served)
    entry = small_lucchi(served, server.url)
    server.faults["/training.tif"] = "truncated"
    with pytest.raises(FileError, match=r"the connection broke after"):
        list(fetch_dataset(entry, tmp_path))
    server.faults.clear()
    other = 255 - tifffile.imread(served / "training.tif")
    tifffile.imwrite(served / "training.tif", other, photometric="minisblack")
    list(fetch_dataset(entry, tmp_path))
    np.testing.assert_array_equal(tifffile.imread(resolve("lucchi", tmp_path).volume), other)
    assert leftovers(tmp_path / "lucchi") == []


def test_a_part_that_is_already_whole(tmp_path: Path, served: Path, serve: Serve) -> None:
    """Killed between the last byte and the rename, a download is repeated (HTTP 416)."""
    server = serve(served)
    entry = small_lucchi(served, server.url)
    server.faults["/training.tif"] = "truncated"
    with pytest.raises(FileError, match=r"the connection broke after"):
        list(fetch_dataset(entry, tmp_path))
    server.faults.clear()
    (partial,) = tmp_path.rglob("*.partial")
    partial.write_bytes((served / "training.tif").read_bytes())
    list(fetch_dataset(entry, tmp_path))
    assert resolve("lucchi", tmp_path).mask is not None


def test_one_split_alone(tmp_path: Path, served: Path, serve: Serve) -> None:
    """NAME:SPLIT fetches the files of that split only; the other one can be added later."""
    server = serve(served)
    entry = small_lucchi(served, server.url)
    one = replace(entry, splits={"testing": entry.splits["testing"]})
    list(fetch_dataset(one, tmp_path))
    assert set(server.requests) == {"/testing.tif", "/testing_groundtruth.tif"}
    list(fetch_dataset(entry, tmp_path))
    assert resolve("lucchi:training", tmp_path).mask is not None
    assert resolve("lucchi:testing", tmp_path).mask is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_fetch_says_how_to_go_on(
    tmp_path: Path, served: Path, serve: Serve, number: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM end a fetch from a server that has stalled; what has arrived stays."""
    server = serve(served)
    (served / "training.tif").write_bytes(bytes(4 * download.CHUNK))
    server.faults["/training.tif"] = "stalls"
    words = ["fetch", "lucchi:training", "--mirror", server.url, "--dest", str(tmp_path / "dest")]
    process = subprocess.Popen(
        [sys.executable, "-m", "mitoda", *words],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )
    try:
        while not any(path.stat().st_size for path in (tmp_path / "dest").rglob("*.partial")):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert f"stopped; what has arrived is kept, continue with: mitoda {' '.join(words[:3])}" in said
    assert "Traceback" not in said
    (partial,) = (tmp_path / "dest").rglob("*.partial")
    assert partial.stat().st_size > 0


def test_a_lock_removed_while_it_is_taken(
    tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch that ends removes its lock; one that has just opened that file takes a new lock, which holds."""
    lock, flock = tmp_path / "lucchi/.lock", fcntl.flock
    locked: list[Path] = []

    def remove_first(file: IO[str], operation: int) -> None:
        if not locked:
            lock.unlink()
        locked.append(lock)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    entry = small_lucchi_without_size("http://127.0.0.1:9")
    first = fetch_dataset(entry, tmp_path, source_dir=served)
    assert next(first).kind
    assert len(locked) == 2
    with pytest.raises(FileError, match=r"another process is fetching"):
        list(fetch_dataset(entry, tmp_path, source_dir=served))
    assert [event.kind for event in first][-1] == "done"


def test_two_fetches_at_once(tmp_path: Path, served: Path) -> None:
    """The second fetch of a data set is refused while the first one works, and takes nothing from it."""
    entry = small_lucchi_without_size("http://127.0.0.1:9")
    first = fetch_dataset(entry, tmp_path, source_dir=served)
    assert next(event for event in first if event.kind == "converting")
    with pytest.raises(
        FileError, match=r"another process is fetching into .*lucchi; wait until it has finished"
    ):
        list(fetch_dataset(entry, tmp_path, source_dir=served))
    assert [event.kind for event in first][-1] == "done"


def test_a_record_that_is_none(tmp_path: Path, served: Path) -> None:
    """A dataset.json that does not fit its description is named with the field, and everything is made again."""
    entry = small_lucchi_without_size("http://127.0.0.1:9")
    list(fetch_dataset(entry, tmp_path, source_dir=served))
    record = tmp_path / "lucchi/dataset.json"
    record.write_text('{"files": {}, "products": {"training/volume.tif": 7}}')
    events = list(fetch_dataset(entry, tmp_path, source_dir=served))
    assert "products.training/volume.tif" in next(e.message for e in events if e.kind == "warning")
    assert [event.file for event in events if event.kind == "converted"].count("training/volume.tif") == 1


def test_a_server_that_recovers(
    tmp_path: Path, served: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken connection is tried again, twice at most; what does not exist is not."""
    server = serve(served)
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    monkeypatch.setattr(download.time, "sleep", lambda seconds: server.faults.clear())
    server.faults["/training.tif"] = "truncated"
    list(fetch_dataset(small_lucchi(served, server.url), tmp_path))
    assert server.requests.count("/training.tif") == 2


def test_a_body_without_end(tmp_path: Path, served: Path, serve: Serve) -> None:
    """A server that sends far more than the published size is stopped."""
    server = serve(served)
    entry = small_lucchi(served, server.url)
    entry = replace(entry, files=tuple(replace(file, size=100, is_size_exact=False) for file in entry.files))
    with pytest.raises(FileError, match=r"training.tif sends more than 400 bytes, which is too large"):
        list(fetch_dataset(entry, tmp_path / "dest"))
    assert list((tmp_path / "dest").rglob("*")) == []


def test_bad_arguments(tmp_path: Path) -> None:
    """Wrong names, mirrors and folders are refused before anything begins."""
    with pytest.raises(InputError, match="no data set 'lucchi2'"):
        fetch_dataset("lucchi2", tmp_path)
    with pytest.raises(InputError, match="mirror is ftp://x; expected an address that begins with http://"):
        fetch_dataset("lucchi", tmp_path, mirror="ftp://x")
    with pytest.raises(FileError, match=r"there is no folder .*nowhere"):
        fetch_dataset("lucchi", tmp_path, source_dir=tmp_path / "nowhere")


def test_a_destination_that_cannot_be_written(tmp_path: Path) -> None:
    """What the operating system says about the destination comes as our error."""
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"file.*: Not a directory"):
        list(fetch_dataset("lucchi", tmp_path / "file"))
