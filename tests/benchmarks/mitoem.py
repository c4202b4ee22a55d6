"""What do the tasks on MitoEM cost? Both of them, from archives of the published layout with made content.

python -m tests.benchmarks.mitoem --folder FOLDER

Nobody here has the data (28 GB). The archives have its names, its sections of 4096 × 4096 pixels, its numbers of
sections and 16-bit instances; what they show is drawn: one tile of 512 × 512, mirrored to fill a section. So time and
memory mean something, and the scores nothing. The folder takes about 30 GB, and what was made there is used again.
"""

import io
import itertools
import json
import os
import statistics
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pooch
import tifffile
from scipy import ndimage

from mitoda.datasets import DATASETS, Dataset, fetch_dataset
from mitoda.synthetic import SOURCE, TARGET, PhantomDomain, draw_phantom
from tests.benchmarks.measuring import Row, parser, run_process, show

TILE = 512
DRAWN = 25
"""Sections that are drawn; the stack goes through them forwards and backwards."""
DOMAINS = {"mitoem-r": SOURCE, "mitoem-h": TARGET}


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--folder", type=Path, required=True, help="for archives, volumes and runs")
    options.add_argument("--methods", default="source-only,isc,mitoda")
    options.add_argument("--tasks", default="mitoem-r-h,mitoem-h-r")
    options.add_argument("--steps", type=int, default=40)
    given = options.parse_args()
    folder: Path = given.folder.absolute()
    os.environ["MITODA_CACHE_DIR"] = str(folder / "cache")
    for name, domain in DOMAINS.items():
        entry = made(name, domain, folder / "archives")
        for _ in fetch_dataset(entry, source_dir=folder / "archives"):
            pass
    rows = []
    for task in given.tasks.split(","):
        for method in given.methods.split(","):
            out = folder / f"{task}-{method}"
            settings = ["--methods", method, "--steps", str(given.steps), "-o", str(out)]
            seconds, memory = run_process([sys.executable, "-m", "mitoda", "bench", task, *settings])
            rows.append(Row(f"{task}, {method}, {given.steps} steps and scoring", seconds, memory=memory))
            rows.append(Row("  a step", seconds_per_step(out)))
        split = f"mitoem-{task[-1]}:validation"
        command = [
            sys.executable,
            "-m",
            "mitoda",
            "segment",
            split,
            "-o",
            str(folder / "mask.tif"),
            "--overwrite",
        ]
        seconds, memory = run_process(command)
        rows.append(Row(f"segment {split}, 100 sections, default weights", seconds, memory=memory))
    show("MitoEM's tasks on made volumes", rows, given.device)


def seconds_per_step(out: Path) -> float:
    """Median over the second half of the logged steps of the only run below a folder."""
    (log,) = out.rglob("log.jsonl")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    ticks = [(line["step"], line["seconds"]) for line in lines if "seconds" in line and "step" in line]
    pace = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.pairwise(ticks) if b[0] > a[0]]
    return float(statistics.median(pace[len(pace) // 2 :]))


def made(name: str, domain: PhantomDomain, folder: Path) -> Dataset:
    """Write the two archives of a data set unless they are there; return its entry with their sizes and hashes."""
    entry = DATASETS[name]
    paths = [folder / name / file.path for file in entry.files]
    if not all(path.exists() for path in paths):
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        write_archives(domain, *paths)
    files = (
        replace(file, size=path.stat().st_size, known_hash=f"sha256:{pooch.file_hash(str(path))}")
        for file, path in zip(entry.files, paths, strict=True)
    )
    return replace(entry, files=tuple(files))


def write_archives(domain: PhantomDomain, images: Path, labels: Path) -> None:
    """Write 500 sections of images and of instances, as the challenge names and stores them."""
    drawn = draw_phantom(replace(domain, voxel_size=(30.0, 8.0, 8.0)), (DRAWN, TILE, TILE), seed=1)
    instances = ndimage.label(drawn[1])[0].astype(np.uint16)
    sides = ((0, 4096 - TILE), (0, 4096 - TILE))
    stored = [
        (
            imageio.imwrite("<bytes>", np.pad(image, sides, "symmetric"), extension=".png", compress_level=1),
            tiff(np.pad(label, sides, "symmetric")),
        )
        for image, label in zip(drawn[0], instances, strict=True)
    ]
    with zipfile.ZipFile(images, "w") as of_images, zipfile.ZipFile(labels, "w") as of_labels:
        for section in range(500):
            image, label = stored[abs((section + DRAWN - 1) % (2 * DRAWN - 2) - (DRAWN - 1))]
            of_images.writestr(f"im/im{section:04d}.png", image)
            part = "mito-train-v2" if section < 400 else "mito-val-v2"
            of_labels.writestr(f"{part}/seg{section:04d}.tif", label)


def tiff(section: np.ndarray) -> bytes:
    """Bytes of a compressed TIFF file."""
    with io.BytesIO() as buffer:
        tifffile.imwrite(buffer, section, compression="zlib")
        return buffer.getvalue()


if __name__ == "__main__":
    main()
