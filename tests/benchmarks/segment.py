"""How fast and how small is `mitoda segment`?

    python -m tests.benchmarks.segment            the Lucchi stack, both backbones, against the published way
    python -m tests.benchmarks.segment --deep     also 2,000 sections of 1024×1024, against 200

The published way (DA-ISC's own inference) takes 20 s a pair on two cores, so three pairs are measured and the stack's
155 are that many times as long; so are `codetection`'s. The others are whole.
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

from mitoda.cli import keep_freed_memory
from mitoda.inference.settings import PredictionSettings
from mitoda.inference.streaming import predict
from mitoda.models.backbones import build_network
from mitoda.models.model import Model, load_model
from mitoda.models.weights import WeightsInfo
from mitoda.volumes import ArrayVolume, Volume, open_volume
from tests.benchmarks.measuring import Row, parser, run_process, show
from tests.benchmarks.published import PublishedNetwork, predict_pair

PAIRS = 155
"""Of the Lucchi stack, 10 sections apart."""
SIZE = (5.0, 5.0, 5.0)


def published_pair(stack: Volume, network: PublishedNetwork, pairs: int) -> float:
    """Seconds of a pair, the published way: the median, with reading and mirroring."""
    times = []
    for k in range(pairs):
        began = time.perf_counter()
        predict_pair(network, stack.read(k), stack.read(k + 10))
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def our_pair(
    stack: Volume, name: str, network: torch.nn.Module, sections: int, device: torch.device
) -> float:
    """Seconds of a pair in the stream, where each costs one encoding and one decoding."""
    model = Model(network, WeightsInfo(name, SIZE[1:], 50.0)).to(device)
    predicted = predict(stack, model)
    next(predicted)  # the first waits for as many sections as the pair is apart
    began = time.perf_counter()
    for _ in itertools.islice(predicted, sections):
        pass
    seconds = (time.perf_counter() - began) / sections
    predicted.close()
    return seconds


def command(stack: Path, output: Path, *more: str) -> tuple[float, int | None]:
    """Seconds and peak memory of the whole command."""
    where = [sys.executable, "-m", "mitoda", "segment", str(stack), "-o", str(output)]
    return run_process([*where, "--voxel-size", "5", "5", "5", "--overwrite", *more])


def deep_stack(folder: Path, sections: int, side: int = 1024) -> Path:
    """Write a stack of noise, a few sections over and over, uncompressed."""
    rng = np.random.default_rng(0)
    few = rng.integers(0, 256, (7, side, side), dtype=np.uint8)
    path = folder / f"deep-{sections}.tif"
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for k in range(sections):
            writer.write(few[k % len(few)], contiguous=True)
    return path


def measure_lucchi(data: Path, repeats: int, device: str, folder: Path) -> list[Row]:
    """Both backbones on the Lucchi stack."""
    path = data / "lucchi" / "training.tif"
    stack = ArrayVolume(np.stack([open_volume(path).read(k) for k in range(40)]), SIZE, "lucchi")
    torch.manual_seed(0)
    network = build_network("codetection").eval()
    chosen = torch.device(device)
    theirs = PAIRS * published_pair(stack, PublishedNetwork(network).eval().to(chosen), 3)
    ours = PAIRS * our_pair(stack, "codetection", network, 4, chosen)
    rows = [
        Row("codetection, the published way (3 pairs measured)", theirs),
        Row("codetection, mitoda, same weights (4 pairs measured)", ours, theirs, limit="at least 4×"),
    ]
    model = load_model(device=device)
    whole = ArrayVolume(np.stack([open_volume(path).read(k) for k in range(165)]), SIZE, "lucchi")
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in predict(whole, model, PredictionSettings(smoothing=15.0)):
            pass
        times.append(time.perf_counter() - began)
    rows.append(
        Row(
            "compact, mitoda, 165 sections from memory",
            float(np.median(times)),
            theirs,
            limit="at least 250×",
        )
    )
    runs = [command(path, folder / "mask.tif", "--device", device) for _ in range(repeats)]
    seconds, memory = sorted(runs)[len(runs) // 2]
    rows.append(
        Row("compact, the whole command: start, TIFF in, TIFF out", seconds, theirs, memory, "under 15 s")
    )
    return rows


def measure_deep(device: str, folder: Path) -> list[Row]:
    """Peak memory of a shallow and of a deep stack."""
    rows = []
    for sections in (200, 2000):
        path = deep_stack(folder, sections)
        seconds, memory = command(path, folder / "deep-mask.tif", "--device", device)
        path.unlink()
        limit = "under 1 GB, within 5 % of 200 sections" if sections == 2000 else ""
        rows.append(
            Row(f"compact, the whole command, {sections}×1024×1024", seconds, memory=memory, limit=limit)
        )
    return rows


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--deep", action="store_true", help="also stacks of 200 and 2,000 sections")
    chosen = options.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure_lucchi(chosen.data, chosen.repeats, chosen.device, Path(folder))
        if chosen.deep:
            rows += measure_deep(chosen.device, Path(folder))
    show(f"segment: Lucchi stack, 165×768×1024, {PAIRS} pairs", rows, chosen.device)


if __name__ == "__main__":
    main()
