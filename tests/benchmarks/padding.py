"""What do padding, banners and shading cost? F1 of `general` on a part of Lucchi's training volume.

python -m tests.benchmarks.padding

Twelve sections of 400 × 400 pixels, changed in memory; F1 over their tissue, beside F1 of the unchanged sections there.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from mitoda.inference.segment import predict_masks
from mitoda.models.model import load_model
from mitoda.volumes import ArrayVolume, open_labels, open_volume
from tests.benchmarks.measuring import describe_machine, parser

VOXEL = (5.0, 5.0, 5.0)
Case = tuple[np.ndarray, np.ndarray]
"""Changed images, and where each pixel came from: (sections, rows, columns) flat indices, −1 outside of the tissue."""


def framed(images: np.ndarray, index: np.ndarray, width: int, value: int) -> Case:
    """A frame of one grey value."""
    margins = ((0, 0), (width, width), (width, width))
    return np.pad(images, margins, constant_values=value), np.pad(index, margins, constant_values=-1)


def rotated(images: np.ndarray, index: np.ndarray, degrees: float, value: int) -> Case:
    """Turned, with corners of one grey value."""
    return tuple(
        ndimage.rotate(one, degrees, axes=(1, 2), order=0, cval=fill)
        for one, fill in ((images, value), (index, -1))
    )


def staggered(images: np.ndarray, index: np.ndarray, value: int) -> Case:
    """Two borders of each section, of another width each, as after alignment."""
    rng = np.random.default_rng(0)
    outside = np.zeros(images.shape, bool)
    for section in outside:
        down, right = rng.integers(-80, 80, 2)
        section[slice(None, down) if down > 0 else slice(down or len(section), None)] = True
        section[:, slice(None, right) if right > 0 else slice(right or len(section), None)] = True
    return np.where(outside, np.uint8(value), images), np.where(outside, -1, index)


def bannered(images: np.ndarray, index: np.ndarray, text: int, ground: int) -> Case:
    """A strip with text and a scale bar below each section."""
    strip = Image.new("L", (images.shape[2], 50), ground)
    drawing = ImageDraw.Draw(strip)
    drawing.text((8, 4), "HV 5.00 kV  mag 20 000 x", fill=text, font=ImageFont.load_default(size=18))
    drawing.rectangle((290, 30, 380, 36), fill=text)
    margins = ((0, 0), (0, 50), (0, 0))
    changed = np.pad(images, margins)
    changed[:, -50:] = np.asarray(strip)
    return changed, np.pad(index, margins, constant_values=-1)


def shaded(images: np.ndarray, index: np.ndarray) -> Case:
    """Grey values times 0.4 at the top to 1.2 at the bottom."""
    factor = np.linspace(0.4, 1.2, images.shape[1])[:, None]
    return np.clip(images * factor, 0, 255).astype(np.uint8), index


def f1(mask: np.ndarray, label: np.ndarray) -> float:
    """2 |A ∩ B| / (|A| + |B|)."""
    return float(
        2 * np.count_nonzero(mask & label) / max(1, np.count_nonzero(mask) + np.count_nonzero(label))
    )


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0]).parse_args()
    model = load_model("general", options.device)
    stack, truth = (
        open_volume(options.data / "lucchi" / "training.tif"),
        open_labels(options.data / "lucchi" / "training_groundtruth.tif"),
    )
    part = slice(100, 500), slice(300, 700)
    images, labels = (np.stack([one.read(k, *part) for k in range(40, 52)]) for one in (stack, truth))
    index = np.arange(images.size).reshape(images.shape)

    def masks(changed: np.ndarray) -> np.ndarray:
        return np.stack(list(predict_masks(ArrayVolume(changed, VOXEL, "changed"), model)))

    unchanged = masks(images)
    cases = {
        "unchanged": (images, index),
        "black frame, 17 %": framed(images, index, 20, 0),
        "black frame, 31 %": framed(images, index, 40, 0),
        "frame of the mean grey value, 17 %": framed(images, index, 20, int(images.mean())),
        "rotated by 25°, white corners": rotated(images, index, 25, 255),
        "staggered black borders": staggered(images, index, 0),
        "banner, white text on black": bannered(images, index, 255, 0),
        "grey values × 0.4 to 1.2": shaded(images, index),
    }
    print(describe_machine(options.device))
    print(f"{'':36} {'outside':>8} {'F1':>6} {'unchanged, same pixels':>23}")
    for name, (changed, origin) in cases.items():
        tissue = origin >= 0
        pixels = origin[tissue]
        label = labels.ravel()[pixels] > 0
        found = f1(masks(changed)[tissue], label)
        same = f1(unchanged.ravel()[pixels], label)
        print(f"{name:36} {1 - tissue.mean():8.1%} {found:6.3f} {same:23.3f}", flush=True)


if __name__ == "__main__":
    main()
