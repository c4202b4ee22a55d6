"""How fast and how small is `mitoda score`?

python -m tests.benchmarks.score              predictions of the Lucchi stack, against scikit-learn
python -m tests.benchmarks.score --large      also a pair of 100×4096×4096, in a process of its own
"""

import sys
from pathlib import Path

import numpy as np

from mitoda.cli import keep_freed_memory
from mitoda.evaluation.scoring import VolumeScore, score
from mitoda.inference.settings import PredictionSettings
from mitoda.inference.streaming import predict
from mitoda.models.model import load_model
from mitoda.volumes import ArrayVolume, open_labels, open_volume
from tests.benchmarks.measuring import Row, median_seconds, parser, run_process, show
from tests.benchmarks.published import score_section

LARGE = (100, 4096, 4096)


class ShiftedVolume:
    """Many large sections out of one, each shifted on, so that only one is in memory."""

    voxel_size = None

    def __init__(self, section: np.ndarray, sections: int, name: str) -> None:
        self.section, self.name = section, name
        self.shape, self.dtype = (sections, *section.shape), section.dtype

    def read(self, section: int, rows: slice = slice(None), columns: slice = slice(None)) -> np.ndarray:
        """The section, rolled along its rows."""
        return np.roll(self.section, 37 * section, axis=0)[rows, columns]


def score_large() -> VolumeScore:
    """Score a large pair: blobs for labels, noisy float32 probabilities around them."""
    rng = np.random.default_rng(0)
    blobs = rng.random((LARGE[1] // 64, LARGE[2] // 64)) < 0.06
    label = np.kron(blobs, np.ones((64, 64), np.uint8))
    noise = rng.normal(size=label.shape).astype(np.float32)
    probability = 1 / (1 + np.exp(4 - 8 * label.astype(np.float32) + 1.5 * noise))
    return score(ShiftedVolume(probability, LARGE[0], "probability"), ShiftedVolume(label, LARGE[0], "label"))


def predicted(data: Path, sections: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of bundled weights on the Lucchi stack, float32, and its labels."""
    folder = data / "lucchi"
    stack = open_volume(folder / "training.tif", voxel_size=(5, 5, 5))
    labels = open_labels(folder / "training_groundtruth.tif")
    images = ArrayVolume(np.stack([stack.read(k) for k in range(sections)]), (5.0, 5.0, 5.0), "lucchi")
    maps = predict(images, load_model(device="cpu"), PredictionSettings(smoothing=0.0))
    return np.stack(list(maps)), np.stack([labels.read(k) for k in range(sections)])


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--sections", type=int, default=165, help="of the Lucchi stack, from the first on")
    options.add_argument("--large", action="store_true", help="also 100×4096×4096")
    options.add_argument("--only-large", action="store_true", help="that alone; how --large measures")
    chosen = options.parse_args()
    keep_freed_memory()
    if chosen.only_large:
        score_large()
        return
    probability, label = predicted(chosen.data, chosen.sections)
    labels = ArrayVolume(label)
    volumes = {
        "float32 probabilities": (ArrayVolume(probability), "aim 50×, at least 30×"),
        "uint8 probabilities": (ArrayVolume(np.rint(255 * probability).astype(np.uint8)), ""),
        "mask": (ArrayVolume((probability >= 0.5).astype(np.uint8) * 255), "at least 150×"),
    }
    theirs = median_seconds(
        lambda: [score_section(one, truth) for one, truth in zip(probability, label, strict=True)], 1
    )
    rows = [Row(f"scikit-learn, {chosen.sections} sections", theirs)]
    for name, (volume, limit) in volumes.items():
        seconds = median_seconds(lambda volume=volume: score(volume, labels), chosen.repeats)
        rows.append(Row(f"mitoda, {name}", seconds, theirs, limit=limit))
    if chosen.large:
        command = [sys.executable, "-m", "tests.benchmarks.score", "--only-large"]
        seconds, memory = run_process(command)
        what = "mitoda, {}×{}×{} float32".format(*LARGE)
        rows.append(Row(what, seconds, memory=memory, limit="under 3 minutes and 2 GB"))
    expected = np.mean(
        [score_section(one, truth) for one, truth in zip(probability[::20], label[::20], strict=True)], axis=0
    )
    found = score(ArrayVolume(probability[::20]), ArrayVolume(label[::20])).mean
    worst = max(abs(expected - [found.average_precision, found.f1, found.mcc, found.iou]))
    show("score", rows, notes=[f"largest difference from scikit-learn on every 20th section: {worst:.1e}"])


if __name__ == "__main__":
    main()
