"""Files that are almost valid: TIFFs, PNGs, weights and run folders, changed at random with a fixed seed."""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from mitoda.errors import MitodaError
from mitoda.volumes import open_values, open_volume, write_sections
from tests.robustness.judging import Case

Random = np.random.Generator


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    """The same grey values in each run."""
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


# Mutations of bytes ---------------------------------------------------------------------------------------------------


def flip(data: bytearray, random: Random, upto: int) -> None:
    """Change one to eight bytes."""
    for place in random.integers(0, min(len(data), upto), random.integers(1, 9)):
        data[place] = random.integers(0, 256)


def overwrite_number(data: bytearray, random: Random, upto: int) -> None:
    """Write a number that is often mishandled."""
    place = int(random.integers(0, max(1, min(len(data), upto) - 8)))
    number = random.choice(np.array([0, 1, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 10**9, 7], np.uint64))
    data[place : place + 4] = struct.pack("<I", int(number))


def cut(data: bytearray, random: Random, upto: int) -> None:
    """Lose the end."""
    del data[int(random.integers(0, len(data))) :]


def remove(data: bytearray, random: Random, upto: int) -> None:
    """Lose a few bytes in between."""
    place = int(random.integers(0, min(len(data), upto)))
    del data[place : place + int(random.integers(1, 17))]


def insert(data: bytearray, random: Random, upto: int) -> None:
    """Gain a few bytes in between."""
    place = int(random.integers(0, min(len(data), upto)))
    data[place:place] = random.bytes(int(random.integers(1, 17)))


def blank(data: bytearray, random: Random, upto: int) -> None:
    """A block of zeros, as a broken disk leaves it."""
    place = int(random.integers(0, min(len(data), upto)))
    length = min(int(random.integers(4, 200)), len(data) - place)
    data[place : place + length] = bytes(length)


BYTES = (flip, overwrite_number, cut, remove, insert, blank)


def mutated(original: bytes, seed: int, upto: int) -> bytes:
    """One or two mutations; `upto` is where the interesting bytes end."""
    random = np.random.default_rng(seed)
    data = bytearray(original)
    for _ in range(int(random.integers(1, 3))):
        if data:
            BYTES[int(random.integers(0, len(BYTES)))](data, random, upto)
    return bytes(data)


# TIFF -----------------------------------------------------------------------------------------------------------------


def tiff_originals(folder: Path) -> dict[str, bytes]:
    """Valid stacks of several writers."""
    folder.mkdir(parents=True)
    stack = noise(3, 40, 48)
    write_sections(folder / "mitoda.tif", stack, stack.shape, stack.dtype, (10, 10, 10))
    size = {"spacing": 10, "unit": "nm"}
    tifffile.imwrite(folder / "imagej.tif", stack, imagej=True, resolution=(0.1, 0.1), metadata=size)
    tifffile.imwrite(folder / "plain.tif", stack, photometric="minisblack")
    tifffile.imwrite(folder / "ome.ome.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    tifffile.imwrite(folder / "lzw.tif", stack, photometric="minisblack", compression="lzw", metadata=None)
    tiles = {"tile": (16, 16), "compression": "zlib", "predictor": True}
    tifffile.imwrite(folder / "tiles.tif", stack.astype(np.uint16), photometric="minisblack", **tiles)
    tifffile.imwrite(folder / "jpeg.tif", stack, photometric="minisblack", compression="jpeg", metadata=None)
    tifffile.imwrite(folder / "big.tif", stack.astype(np.float32), photometric="minisblack", bigtiff=True)
    tifffile.imwrite(folder / "rgb.tif", np.stack([stack] * 3, -1), photometric="rgb")
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def read_by_tifffile(path: Path) -> np.ndarray | None:
    """The stack as tifffile reads it, None where it does not."""
    try:
        return tifffile.imread(path).squeeze()
    except Exception:  # noqa: BLE001 (whatever it raises on damage)
        return None


def differs_from_tifffile(path: Path) -> str:
    """Say where mitoda reads other values than tifffile does."""
    expected = read_by_tifffile(path)
    if expected is None or expected.dtype == bool:
        return ""
    try:
        volume = open_values(path)
        found = np.stack([volume.read(k) for k in range(volume.shape[0])]).squeeze()
    except MitodaError:
        return ""
    if expected.ndim > 2 and expected.shape[-1] in (3, 4) and found.shape == expected.shape[:-1]:
        expected = expected[..., 0]
    if found.shape != expected.shape:
        return f"has shape {found.shape}, and for tifffile {expected.shape}"
    return "" if np.array_equal(found, expected, equal_nan=found.dtype.kind == "f") else "values differ"


def tiff_cases(originals: dict[str, bytes], weights: Path, work: Path, count: int) -> Iterator[Case]:
    """Stacks to look at, to segment and to score."""
    for number in range(count):
        name = sorted(originals)[number % len(originals)]
        suffix = ".ome.tif" if name.startswith("ome") else ".tif"
        path = work / f"stack{suffix}"
        path.write_bytes(mutated(originals[name], number, 1200 if number % 4 else 1 << 30))
        command = ["inspect", path]
        if number % 3 == 0:
            command = ["segment", path, "-o", work / "mask.tif", "--weights", weights, "--overwrite"]
            command += ["--voxel-size", 10, 10, 10]
        elif number % 3 == 1:
            command = ["score", path, path]
        differs = partial(differs_from_tifffile, path)
        yield Case(f"{name} mutated with seed {number}, {command[0]}", command, verify=differs)
        for partial_file in work.glob("mask*"):
            partial_file.unlink()


def claim_cases(work: Path) -> Iterator[Case]:
    """Small files that claim to be large."""
    section, side = noise(64, 64), 20_000
    shaped = json.dumps({"shape": [10**9, 64, 64]})
    imagej = "ImageJ=1.54f\nimages=1000000000\nslices=1000000000\nunit=nm\nspacing=5.0\n"
    pixels = (
        'DimensionOrder="XYZCT" Type="uint8" SizeX="64" SizeY="64" SizeZ="1000000000" SizeC="1" SizeT="1"'
    )
    namespace = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    ome = f'<?xml version="1.0"?><OME xmlns="{namespace}"><Image><Pixels {pixels}/></Image></OME>'
    for name, description in (("shaped", shaped), ("imagej", imagej), ("ome.ome", ome)):
        tifffile.imwrite(work / f"{name}.tif", section, description=description, metadata=None)
    empty = np.broadcast_to(np.zeros(1, np.uint8), (side, side))
    tifffile.imwrite(work / "zlib.tif", empty, compression="zlib", metadata=None)
    Image.new("L", (side, side)).save(work / "empty.png")
    for name in ("shaped.tif", "imagej.tif", "ome.ome.tif", "zlib.tif", "empty.png"):
        for command in ("inspect", "adapt"):
            arguments = [work / name] if command == "inspect" else ["--target", work / name, "--source-free"]
            yield Case(f"{name} claims to be large, {command}", [command, *arguments], must_fail=True)


# PNG ------------------------------------------------------------------------------------------------------------------


def png_originals(folder: Path) -> dict[str, bytes]:
    """One section in several modes."""
    folder.mkdir(parents=True)
    section = noise(40, 48)
    Image.fromarray(section).save(folder / "grey.png")
    Image.fromarray(section.astype(np.uint16) * 257).save(folder / "grey16.png")
    Image.fromarray(section > 100).save(folder / "bilevel.png")
    Image.fromarray(np.stack([section] * 3, -1)).save(folder / "rgb.png")
    Image.fromarray(section).convert("P").save(folder / "palette.png")
    Image.fromarray(section).save(folder / "grey.jpg", quality=95)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def png_cases(originals: dict[str, bytes], work: Path, count: int) -> Iterator[Case]:
    """A mutated section alone, and as the second of three in a folder."""
    for number in range(count):
        name = sorted(originals)[number % len(originals)]
        folder = work / "sections"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        suffix = Path(name).suffix
        for k in range(3):
            (folder / f"s{k}{suffix}").write_bytes(originals[name])
        broken = folder / f"s1{suffix}"
        broken.write_bytes(mutated(originals[name], number, 1 << 30))
        yield Case(f"{name} mutated with seed {number}", ["inspect", folder if number % 2 else broken])


# JSON -----------------------------------------------------------------------------------------------------------------

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), float("inf"), "", "x", "\x00", "../../x", "é" * 5000, [], {},
    [1, 2, 3, 4], {"a": 1}, [[[[[1]]]]], 10**30, "[bold]", "\ud800",
)  # fmt: skip


def places(record: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON value, from the top."""
    yield path
    items = (
        record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    )
    for key, value in items:
        yield from places(value, (*path, key))


def hostile_records(record: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The record with each value replaced by each hostile one or missing, and a few broken texts."""
    for path in list(places(record)):
        for value in (*HOSTILE, "missing"):
            changed = json.loads(json.dumps(record))
            if not path:
                changed = value
            else:
                parent = changed
                for key in path[:-1]:
                    parent = parent[key]
                if value == "missing":
                    del parent[path[-1]]
                else:
                    parent[path[-1]] = value
            named = ".".join(map(str, path)) or "everything"
            yield f"{named} = {str(value)[:20]!a}", json.dumps(changed).encode()
    text = json.dumps(record)
    yield "nested", b"[" * 100_000
    yield "nested objects", b'{"a":' * 100_000
    yield "half", text[: len(text) // 2].encode()
    yield "not UTF-8", b"\xff\xfe" + text.encode()
    yield "twice", (text + text).encode()
    yield "extra", json.dumps({**record, "extra": 1}).encode()
    yield "nothing", b""


# Weights --------------------------------------------------------------------------------------------------------------


def weights_cases(original: bytes, stack: Path, work: Path, step: int) -> Iterator[Case]:
    """Weights of which the metadata, the header or the tensors are wrong; every `step`-th."""
    path = work / "hostile.safetensors"
    length = struct.unpack("<Q", original[:8])[0]
    header, tensors = json.loads(original[8 : 8 + length]), original[8 + length :]
    command = ["segment", stack, "-o", work / "mask.tif", "--weights", path, "--overwrite"]

    def write(metadata: Any) -> None:
        text = json.dumps({**header, "__metadata__": metadata}).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)

    made: list[tuple[str, Callable[[], object]]] = []
    for name, content in hostile_records(json.loads(header["__metadata__"]["mitoda"])):
        metadata = {**header["__metadata__"], "mitoda": content.decode("latin-1")}
        made.append((f"metadata with {name}", partial(write, metadata)))
    for number in range(300):
        made.append((f"bytes with seed {number}", partial(path.write_bytes, mutated(original, number, 4000))))
    for name, make in made[:: step or 1]:
        make()
        yield Case(f"weights: {name}", command)
        for left in work.glob("mask*"):
            left.unlink()


# Run folders ----------------------------------------------------------------------------------------------------------


def run_cases(run: Path, work: Path, bystander: Path, step: int) -> Iterator[Case]:
    """Run folders to resume, of which one file is wrong, missing, a link or a pipe; every `step`-th."""
    copy = work / "run"
    made: list[tuple[str, Callable[[], object]]] = []
    for name, content in hostile_records(json.loads((run / "run.json").read_bytes())):
        made.append((f"run.json with {name}", partial((copy / "run.json").write_bytes, content)))
    log = (run / "log.jsonl").read_bytes()
    for number, (name, content) in enumerate(hostile_records(json.loads(log.splitlines()[0]))):
        end = b"\n" if number % 2 else b"\n" + log
        made.append((f"log.jsonl with {name}", partial((copy / "log.jsonl").write_bytes, content + end)))
    for file in ("state.pt", "weights.safetensors", "log.jsonl", "run.json"):
        original = (run / file).read_bytes()
        for number in range(30):
            content = mutated(original, number, 6000 if number % 2 else 1 << 30)
            made.append((f"{file}: bytes with seed {number}", partial((copy / file).write_bytes, content)))
    for file in ("run.json", "state.pt", "weights.safetensors", "log.jsonl", "curves.png", "report.html"):
        for kind in (_missing, _linked, _pipe, _folder):
            made.append((f"{file} {kind.__name__}", partial(kind, copy / file, bystander)))
    for name, make in made[:: step or 1]:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        make()
        yield Case(f"run folder: {name}", ["adapt", "--resume", copy, "--steps", "2"])


def _missing(path: Path, bystander: Path) -> None:
    path.unlink(missing_ok=True)


def _linked(path: Path, bystander: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(bystander)


def _pipe(path: Path, bystander: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _folder(path: Path, bystander: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def opens_as(path: Path) -> np.ndarray:
    """All sections of a stack."""
    volume = open_volume(path)
    return np.stack([volume.read(k) for k in range(volume.shape[0])])
