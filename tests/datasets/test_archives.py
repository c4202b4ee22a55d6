"""Archives like those of lucchi++, kasthuri++, MitoEM and UroCell, made here and served on loopback."""

import hashlib
import io
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import nibabel
import numpy as np
import pytest
import tifffile

from mitoda.datasets import DATASETS, Dataset, Split, fetch_dataset, resolve
from mitoda.datasets.download import git_blob
from mitoda.errors import FileError, InputError
from mitoda.volumes import open_labels, open_volume

Serve = Callable[[Path], Any]


def png(image: np.ndarray) -> bytes:
    return imageio.imwrite("<bytes>", image, extension=".png")


def tiff(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, image)
    return buffer.getvalue()


def write_zip(path: Path, members: Mapping[str, bytes]) -> None:
    """Write the members in the order of a scrambled listing."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(members, key=lambda name: hashlib.sha256(name.encode()).digest()):
            archive.writestr(name, members[name])


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def like(name: str, folder: Path, shapes: Mapping[str, tuple[int, int, int]], **changes: Any) -> Dataset:
    """Return an entry of the table with small shapes and the hashes of the files in `folder`."""
    entry = DATASETS[name]
    files = []
    for file in entry.files:
        path = folder / name / file.path
        if path.exists():
            is_blob = str(file.known_hash).startswith("git_blob:")
            known = f"git_blob:{git_blob(path)}" if is_blob else f"sha256:{hash_of(path)}"
            files.append(replace(file, known_hash=known))
    splits = {split: replace(entry.splits[split], shape=shape) for split, shape in shapes.items()}
    return replace(entry, files=tuple(files), splits=splits, **changes)


def stack(path: Path) -> np.ndarray:
    volume = open_volume(path)
    return np.stack([volume.read(section) for section in range(volume.shape[0])])


def grey(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def casser_archive(path: Path, volumes: Mapping[str, tuple[np.ndarray, list[np.ndarray]]], top: str) -> None:
    """Write a zip as Casser et al. publish: images `mask0000.png`, labels `0.png` without zero padding."""
    members = {f"{top}/Train_Out/.DS_Store": b"junk", f"__MACOSX/{top}/Train_Out/._0.png": b"junk"}
    for split, (images, labels) in volumes.items():
        for z, image in enumerate(images):
            members[f"{top}/{split}_In/mask{z:04d}.png"] = png(image)
        for z, label in enumerate(labels):
            members[f"{top}/{split}_Out/{z}.png"] = png(label)
    path.parent.mkdir(parents=True)
    write_zip(path, members)


def test_lucchi_pp_sorts_naturally_and_reads_rgba(tmp_path: Path, serve: Serve) -> None:
    """Labels 0.png to 11.png come in counting order, grey or RGBA, and Train stays training."""
    shape = (12, 6, 7)
    masks = {split: grey(shape, seed) > 128 for seed, split in enumerate(("Train", "Test"))}
    rgba = [
        np.dstack([mask * np.uint8(255)] * 3 + [np.full(shape[1:], 255, np.uint8)]) for mask in masks["Test"]
    ]
    rgba[3][0, 0] = (255, 0, 0, 255)  # a coloured mark is no mitochondrion
    masks["Test"][3, 0, 0] = False
    volumes = {
        "Train": (grey(shape, 2), list(masks["Train"] * np.uint8(255))),
        "Test": (grey(shape, 3), rgba),
    }
    casser_archive(tmp_path / "srv/lucchi++/lucchi_pp.zip", volumes, "Lucchi++")
    entry = like("lucchi++", tmp_path / "srv", {"training": shape, "testing": shape})
    server = serve(tmp_path / "srv")
    list(fetch_dataset(entry, tmp_path, mirror=server.url))
    for split, folder in (("training", "Train"), ("testing", "Test")):
        found = resolve(f"lucchi++:{split}", tmp_path)
        assert found.mask is not None
        assert found.ignore is None
        np.testing.assert_array_equal(stack(found.volume), volumes[folder][0])
        np.testing.assert_array_equal(stack(found.mask), masks[folder] * 255)
    assert server.requests == ["/lucchi++/lucchi_pp.zip"]  # once, for four conversions


def test_kasthuri_pp_keeps_what_is_not_annotated_apart(tmp_path: Path) -> None:
    """The value 2 is neither foreground nor background: 0 in mask.tif, 255 in ignore.tif; no voxel size."""
    shape = (3, 5, 4)
    values = np.random.default_rng(4).choice(np.array([0, 2, 255], np.uint8), shape)
    rgb = [np.dstack([section] * 3) for section in values]
    volumes = {"Train": (grey(shape), rgb), "Test": (grey(shape, 1), rgb)}
    casser_archive(tmp_path / "srv/kasthuri++/kasthuri_pp.zip", volumes, "Kasthuri++")
    entry = like("kasthuri++", tmp_path / "srv", {"training": shape, "testing": shape})
    events = list(fetch_dataset(entry, tmp_path, source_dir=tmp_path / "srv"))
    found = resolve("kasthuri++", tmp_path)
    assert found.mask is not None
    assert found.ignore is not None
    np.testing.assert_array_equal(stack(found.mask), (values == 255) * 255)
    np.testing.assert_array_equal(stack(found.ignore), (values == 2) * 255)
    assert found.voxel_size is None
    assert open_volume(found.volume).voxel_size is None
    assert any(event.kind == "warning" and "--voxel-size" in event.message for event in events)
    found.ignore.unlink()
    list(fetch_dataset(entry, tmp_path, source_dir=tmp_path / "srv"))
    assert found.ignore.exists()


def mitoem_archives(folder: Path, images: np.ndarray, labels: list[np.ndarray], first: int) -> None:
    folder.mkdir(parents=True)
    members = {f"im/im{z:04d}.png": png(image) for z, image in enumerate(images)}
    members |= {f"__MACOSX/im/._im{z:04d}.png": b"junk" for z in range(len(images))}
    write_zip(folder / "EM30-R-im.zip", members)
    members = {}
    for z, label in enumerate(labels):
        part = "mito-train-v2" if z < first else "mito-val-v2"
        members[f"{part}/seg{z:04d}.tif"] = tiff(label)
    write_zip(folder / "EM30-R-mito-train-val-v2.zip", members)


def like_mitoem(folder: Path, size: int, training: range, validation: range) -> Dataset:
    entry = like("mitoem-r", folder, {})

    def part(split: str, numbers: range) -> Split:
        known = DATASETS["mitoem-r"].splits[split]
        assert known.labels is not None
        return replace(
            known,
            shape=(len(numbers), size, size),
            images=replace(known.images, numbers=numbers),
            labels=replace(known.labels, numbers=numbers),
        )

    splits = {"training": part("training", training), "validation": part("validation", validation)}
    return replace(entry, splits=splits)


def test_mitoem_takes_the_labelled_sections_by_number(tmp_path: Path, serve: Serve) -> None:
    """Sections go to splits by their number, 16-bit and 32-bit instances become a mask, the rest is left."""
    images = grey((9, 8, 8))
    ids = np.random.default_rng(1).choice(np.array([0, 1, 256, 65536], np.uint32), (7, 8, 8))
    labels = [section.astype(np.uint32 if z % 2 else np.uint16) for z, section in enumerate(ids)]
    mitoem_archives(tmp_path / "srv/mitoem-r", images, labels, first=4)
    entry = like_mitoem(tmp_path / "srv", 8, range(4), range(4, 7))
    list(fetch_dataset(entry, tmp_path, mirror=serve(tmp_path / "srv").url))
    for split, numbers in (("training", slice(0, 4)), ("validation", slice(4, 7))):
        found = resolve(f"mitoem-r:{split}", tmp_path)
        assert found.mask is not None
        np.testing.assert_array_equal(stack(found.volume), images[numbers])
        expected = np.stack([section > 0 for section in labels[numbers]])
        np.testing.assert_array_equal(stack(found.mask), expected * 255)
    assert open_volume(resolve("mitoem-r", tmp_path).volume).voxel_size == (30.0, 8.0, 8.0)


def test_mitoem_is_converted_in_bounded_memory(tmp_path: Path) -> None:
    """The peak of memory is a few sections, whatever the depth: the zip is never unpacked or stacked."""
    size, depth = 256, 64
    images = grey((depth, size, size))
    labels = [(image > 200).astype(np.uint16) for image in images]
    mitoem_archives(tmp_path / "srv/mitoem-r", images, labels, first=depth)
    entry = like_mitoem(tmp_path / "srv", size, range(depth - 1), range(depth - 1, depth))
    list(
        fetch_dataset(
            like_mitoem(tmp_path / "srv", size, range(1), range(1, 2)),
            tmp_path / "warm",
            source_dir=tmp_path / "srv",
        )
    )  # imports are not what is measured
    tracemalloc.start()
    for _ in fetch_dataset(entry, tmp_path, source_dir=tmp_path / "srv"):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * size * size  # bytes; the volume has 63 times as many, the ids 126 times


def test_mitoem_with_a_section_missing(tmp_path: Path) -> None:
    """An archive that lacks a section is refused with the number of the section."""
    mitoem_archives(tmp_path / "srv/mitoem-r", grey((3, 8, 8)), [np.ones((8, 8), np.uint16)] * 3, first=2)
    entry = like_mitoem(tmp_path / "srv", 8, range(2), range(2, 5))
    sentence = r"EM30-R-im.zip lacks 2 of the 3 sections im\*.png; the first one missing is number 3"
    with pytest.raises(FileError, match=sentence):
        list(fetch_dataset(entry, tmp_path, source_dir=tmp_path / "srv"))
    assert resolve("mitoem-r:training", tmp_path).mask is not None  # what came before is complete
    assert not list((tmp_path / "mitoem-r").glob(".partial*"))


def write_nifti(path: Path, values: np.ndarray, order: str = "<") -> None:
    """Write (section, row, column) as gzipped NIfTI with a voxel size that means nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values.T, np.diag([57594928.0] * 3 + [1]))
    if order == ">":
        image = nibabel.Nifti1Image(values.T, None, image.header.as_byteswapped(order))
    nibabel.save(image, path)


@pytest.mark.parametrize("order", ["<", ">"])
def test_urocell_keeps_axes_and_ignores_the_header(tmp_path: Path, serve: Serve, order: str) -> None:
    """x runs fastest in NIfTI and becomes the column, which no cube could show; voxels are 15, 16, 16."""
    volume, mask = grey((3, 4, 5)), (grey((3, 4, 5), 1) > 128).astype(np.float32)
    write_nifti(tmp_path / "srv/urocell/data/fib1-0-0-0.nii.gz", volume.astype(np.int16), order)
    write_nifti(tmp_path / "srv/urocell/mito/binary/fib1-0-0-0.nii.gz", mask, order)
    entry = like("urocell", tmp_path / "srv", {"fib1-0-0-0": volume.shape})
    list(fetch_dataset(entry, tmp_path, mirror=serve(tmp_path / "srv/urocell").url))
    found = resolve("urocell", tmp_path)
    assert found.mask is not None
    np.testing.assert_array_equal(stack(found.volume), volume)
    np.testing.assert_array_equal(stack(found.mask), mask * 255)
    assert open_labels(found.mask).voxel_size == (15.0, 16.0, 16.0)


def mitoem2_archive(path: Path, members: Mapping[str, np.ndarray]) -> None:
    """Write a zip of NIfTI volumes, given as (section, row, column), in nnU-Net's folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/dataset.json", "{}")
        for name, values in members.items():
            write_nifti(path.with_name("one.nii.gz"), values)
            archive.write(path.with_name("one.nii.gz"), f"{path.stem}/{name}.nii.gz")


def test_mitoem2_takes_shapes_from_headers(tmp_path: Path, serve: Serve) -> None:
    """Volumes of unknown shape come out of one archive, labels over 0 are foreground; one is stored transposed."""
    volumes = {"jurkat_train01": (4, 5, 6), "jurkat_train02": (3, 6, 7)}
    members, expected = {}, {}
    for seed, (name, shape) in enumerate(volumes.items()):
        ids = np.random.default_rng(seed).choice(np.array([0, 1, 2, 300], np.uint16), shape)
        expected[name] = grey(shape, seed), (ids > 0) * 255
        members[f"imagesTr/me2-{name}_0000"] = expected[name][0]
        members[f"labelsTr/me2-{name}"] = ids.T if name == "jurkat_train02" else ids
    mitoem2_archive(tmp_path / "srv/mitoem2/Dataset002_ME2-Jurkat.zip", members)
    server = serve(tmp_path / "srv")
    entry = DATASETS["mitoem2"]
    entry = replace(entry, splits={name: entry.splits[name] for name in volumes})
    events = list(fetch_dataset(entry, tmp_path, mirror=server.url))
    assert server.requests == ["/mitoem2/Dataset002_ME2-Jurkat.zip"]
    for name, (volume, mask) in expected.items():
        found = resolve(f"mitoem2:{name}", tmp_path)
        assert found.mask is not None
        np.testing.assert_array_equal(stack(found.volume), volume)
        np.testing.assert_array_equal(stack(found.mask), mask)
        assert open_volume(found.volume).voxel_size == (16.0, 16.0, 16.0)
    assert any("unverified" in event.message for event in events if event.kind == "warning")


def test_mitoem2_transposed_only_where_known(tmp_path: Path) -> None:
    """Labels whose axes are not those of the images are refused, not guessed at; so is a damaged archive."""
    path = tmp_path / "mitoem2/Dataset002_ME2-Jurkat.zip"
    names = "imagesTr/me2-jurkat_train01_0000", "labelsTr/me2-jurkat_train01"
    mitoem2_archive(path, {names[0]: grey((4, 5, 6)), names[1]: np.ones((6, 5, 4), np.uint8)})
    entry = DATASETS["mitoem2"]
    entry = replace(entry, splits={"jurkat_train01": entry.splits["jurkat_train01"]})
    with pytest.raises(InputError, match=r"section 0 has the shape \(5, 4\), expected \(5, 6\)"):
        list(fetch_dataset(entry, tmp_path / "a", source_dir=tmp_path))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{names[0]}.nii.gz", b"not gzip")
    with pytest.raises(FileError, match=r"ME2-Jurkat.zip cannot be read: Not a gzipped file"):
        list(fetch_dataset(entry, tmp_path / "b", source_dir=tmp_path))


def test_nifti_is_converted_in_bounded_memory(tmp_path: Path) -> None:
    """The peak of memory is a few sections, whatever the depth."""
    side, depth = 256, 64
    names = "imagesTr/me2-beta_train01_0000", "labelsTr/me2-beta_train01"
    members = {names[0]: grey((depth, side, side)), names[1]: np.ones((depth, side, side), np.uint16)}
    mitoem2_archive(tmp_path / "mitoem2/Dataset001_ME2-Beta.zip", members)
    entry = DATASETS["mitoem2"]
    entry = replace(entry, splits={"beta_train01": entry.splits["beta_train01"]})
    tracemalloc.start()
    for event in fetch_dataset(entry, tmp_path / "a", source_dir=tmp_path):
        if event.kind == "converting" and event.done == 1:  # imports are not what is measured
            tracemalloc.reset_peak()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 * side * side  # bytes; the labels have 128 times as many


def test_empiar_10982_reads_instance_numbers(tmp_path: Path, serve: Serve) -> None:
    """Instance numbers of any width become a mask; each volume has its own voxel size."""
    shape = (3, 6, 7)
    names = {"c_elegans": np.uint8, "fly_brain": np.uint16, "hela_cell": np.uint32}
    ids = np.random.default_rng(0).choice(np.array([0, 1, 200]), shape)
    for name, dtype in names.items():
        folder = tmp_path / "srv/empiar-10982/mito_benchmarks" / name
        folder.mkdir(parents=True)
        tifffile.imwrite(folder / f"{name}_em.tif", grey(shape), photometric="minisblack")
        tifffile.imwrite(folder / f"{name}_mito.tif", ids.astype(dtype), photometric="minisblack")
    entry = DATASETS["empiar-10982"]
    entry = replace(entry, splits={name: replace(entry.splits[name], shape=shape) for name in names})
    list(fetch_dataset(entry, tmp_path, mirror=serve(tmp_path / "srv").url))
    for name, length in (("c_elegans", 24.0), ("fly_brain", 12.0), ("hela_cell", 15.0)):
        found = resolve(f"empiar-10982:{name}", tmp_path)
        assert found.mask is not None
        np.testing.assert_array_equal(stack(found.mask), (ids > 0) * 255)
        assert found.voxel_size == open_labels(found.mask).voxel_size == (length,) * 3


def test_urocell_checks_the_git_blob(tmp_path: Path) -> None:
    """Where only git's name of the content is known, it decides."""
    volume = grey((2, 3, 4))
    for path in ("data/fib1-0-0-0.nii.gz", "mito/binary/fib1-0-0-0.nii.gz"):
        write_nifti(tmp_path / "srv/urocell" / path, volume)
    entry = like("urocell", tmp_path / "srv", {"fib1-0-0-0": volume.shape})
    write_nifti(tmp_path / "srv/urocell/data/fib1-0-0-0.nii.gz", volume + np.uint8(1))
    with pytest.raises(
        FileError, match=r"has the git_blob .*, expected .*verified: computed from the pinned commit"
    ):
        list(fetch_dataset(entry, tmp_path, source_dir=tmp_path / "srv"))


def test_git_blob_of_known_content(tmp_path: Path) -> None:
    """`git hash-object` of a file with "hello" and a line feed gives ce013625…"""
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert git_blob(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_a_zip_that_is_none(tmp_path: Path) -> None:
    """A broken archive is an error that names the file."""
    (tmp_path / "lucchi_pp.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    shapes = {"training": (1, 2, 2), "testing": (1, 2, 2)}
    known = f"sha256:{hash_of(tmp_path / 'lucchi_pp.zip')}"
    entry = like("lucchi++", tmp_path, shapes)
    entry = replace(entry, files=(replace(DATASETS["lucchi++"].files[0], known_hash=known),))
    with pytest.raises(
        FileError, match=r"section 0 cannot be read from .*lucchi_pp.zip: File is not a zip file"
    ):
        list(fetch_dataset(entry, tmp_path / "dest", source_dir=tmp_path))


def test_shape_is_checked(tmp_path: Path) -> None:
    """An archive of another size than the table's is refused, with both shapes."""
    shape = (2, 5, 4)
    volumes = {split: (grey(shape), list(grey(shape))) for split in ("Train", "Test")}
    casser_archive(tmp_path / "srv/lucchi++/lucchi_pp.zip", volumes, "Lucchi++")
    entry = like("lucchi++", tmp_path / "srv", {"training": (2, 4, 5), "testing": shape})
    with pytest.raises(InputError, match=r"section 0 has the shape \(5, 4\), expected \(4, 5\)"):
        list(fetch_dataset(entry, tmp_path, source_dir=tmp_path / "srv"))
    entry = like("lucchi++", tmp_path / "srv", {"training": (3, 5, 4), "testing": shape})
    with pytest.raises(InputError, match="there are 2 sections, expected 3"):
        list(fetch_dataset(entry, tmp_path, source_dir=tmp_path / "srv"))
