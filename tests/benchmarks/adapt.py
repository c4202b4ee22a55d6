"""How fast is a step of `mitoda adapt`?

    python -m tests.benchmarks.adapt                      steps of three methods, and the pseudo-label pass
    python -m tests.benchmarks.adapt --published          also a step of DA-ISC as published (a minute or two)

Batches are of 2 pairs of 512×512 pixels of VNC III and Lucchi; a step is drawing them, the method's update and the
average of the weights. The published step is one pair of each domain, without drawing it.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import torch

from mitoda.cli import keep_freed_memory
from mitoda.data.augmentation import augmentation_named
from mitoda.data.pairs import PseudoLabels
from mitoda.data.sampling import BatchSettings, BatchStream
from mitoda.methods import Arithmetic, method_named
from mitoda.models.backbones import build_network
from mitoda.models.device import choose_bfloat16
from mitoda.models.heads import PatchDiscriminator
from mitoda.models.model import Model
from mitoda.training.domains import Prepared, prepare
from mitoda.training.pseudo_labels import predict_coarse
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan, TrainingSettings
from mitoda.training.state import Run
from tests.benchmarks.measuring import Row, median_seconds, parser, show
from tests.benchmarks.published import PublishedNetwork, PublishedStep

SIDE = 512


def prepared_pairs(data: Path, method: str) -> Prepared:
    """VNC III with its labels, and Lucchi's testing half without any."""
    stack = data / "vnc3" / "stack1"
    plan = Plan(
        source=f"{stack / 'raw'}:{stack / 'mitochondria'}",
        target=str(data / "lucchi" / "testing.tif"),
        training=TrainingSettings(method=method, steps=1000),
        start=None,
        source_voxel_size=(50.0, 4.6, 4.6),
        target_voxel_size=(5.0, 5.0, 5.0),
    )
    return prepare(plan)


def step_seconds(data: Path, method: str, arithmetic: Arithmetic, steps: int) -> list[float]:
    """Seconds of each step of a method: batch, update, average; those before caches are filled are left out."""
    prepared = prepared_pairs(data, method)
    settings = TrainingSettings(method=method, steps=1000)
    run = Run(settings, arithmetic, prepared.info, RunFolder(Path()))
    stream = BatchStream(
        prepared.source,
        prepared.target if method_named(method)[0].needs_target else None,
        BatchSettings(2, SIDE, augmentation_named("strong"), "standard", grid=run.method.network.grid),
        arithmetic.device,
        lambda step: run.method.wants(0.9),
    )
    pseudo_labels = None
    if method == "mitoda":  # as it is from its first round on
        sections, rows, columns = prepared.target.volume.shape
        believed = np.random.default_rng(0).integers(0, 256, (sections, rows // 4, columns // 4), np.uint8)
        pseudo_labels = PseudoLabels(believed, 0, (4.0, 4.0), 0.35, 0.6)
    run.method.train()
    seconds = []
    for step in range(steps + 6):
        began = time.perf_counter()
        source, target = stream.batch(step, pseudo_labels)
        run.method.update(source, target, 0.9)
        run.update_average()
        if arithmetic.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    stream.close()
    return seconds[6:]


def label_target(data: Path, arithmetic: Arithmetic) -> None:
    """What a round of `mitoda` begins with: the whole adaptation volume predicted and smoothed."""
    prepared = prepared_pairs(data, "mitoda")
    predict_coarse(
        Model(build_network("compact"), prepared.info, arithmetic.device, arithmetic.bfloat16),
        prepared.target.volume,
        prepared.target.stride,
        smoothing=15.0,
    )


def published_seconds(repeats: int, device: torch.device) -> float:
    """Seconds of a step of DA-ISC as published."""
    network = PublishedNetwork(build_network("codetection"))
    step = PublishedStep(*(one.to(device) for one in (network, PatchDiscriminator(2), PatchDiscriminator(2))))
    source, target = torch.rand(2, 1, 2, SIDE, SIDE, device=device)
    labels = (torch.rand(1, 2, SIDE, SIDE, device=device) > 0.9).long()
    return median_seconds(lambda: step(source, labels, target), repeats, device.type)


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=20, help="steps of each method")
    options.add_argument("--published", action="store_true", help="also the published step")
    options.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    chosen = options.parse_args()
    keep_freed_memory()
    device = torch.device(chosen.device)
    arithmetic = Arithmetic(device, choose_bfloat16(chosen.precision, device))
    theirs = published_seconds(chosen.repeats, device) if chosen.published else None
    rows = [] if theirs is None else [Row("isc on codetection as published, 1 pair of each domain", theirs)]
    for method in ("source-only", "isc", "mitoda"):
        seconds = statistics.median(step_seconds(chosen.data, method, arithmetic, chosen.steps))
        rows.append(Row(f"{method} on compact, 2 pairs of each domain it learns from", seconds, theirs))
    seconds = median_seconds(lambda: label_target(chosen.data, arithmetic), 1, device.type)
    rows.append(Row("pseudo labels of the whole Lucchi stack, 165 sections", seconds))
    show("adapt: seconds of a training step", rows, chosen.device)


if __name__ == "__main__":
    main()
