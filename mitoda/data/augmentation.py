"""Random changes of geometry and of grey values, the same for both sections of a pair.

One affine map from the patch's pixels to the section's does rotation, flip, zoom and resampling to the working pixel
size in a single interpolation, which needs only the patch's bounding box of the section.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mitoda.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random numbers. A log range r gives a factor of e^−r to e^r, uniform in its logarithm."""

    probability: float = 1.0
    """Share of pairs that are changed; the others are only flipped and turned by multiples of 90°."""
    rotation: bool = True
    """Any angle; otherwise multiples of 90°."""
    zoom: float = 0.35
    """Log range of magnification."""
    gamma: float = 0.4
    """Log range of the exponent, on grey values scaled to 0…1."""
    contrast: float = 0.5
    """Log range of the contrast about the mean."""
    brightness: float = 0.0
    """Largest offset up or down, as a share of the grey range."""
    blur: float = 2.5
    """Largest standard deviation of a Gaussian blur, in pixels."""
    motion: int = 0
    """Longest motion blur, in pixels."""
    noise: float = 0.12
    """Largest standard deviation of Gaussian noise, as a share of the grey range."""
    elastic: float = 0.0
    """Standard deviation of a smooth displacement, in pixels."""


AUGMENTATIONS: dict[str, Augmentation] = {
    # For transfer between microscopes: any angle, and a wide range of grey values.
    "strong": Augmentation(),
    # For weights that must cope with other voxel sizes: a factor of two either way.
    "wide": Augmentation(zoom=0.7),
    # DA-ISC's list with the effective odds of its albumentations 1.1 (half of all samples).
    "paper": Augmentation(
        probability=0.5, gamma=0.0, contrast=0.2, brightness=0.2, blur=0.0, motion=7, noise=0.0, elastic=2.0
    ),
    "none": Augmentation(0.0, rotation=False, zoom=0.0, gamma=0.0, contrast=0.0, blur=0.0, noise=0.0),
}
"""By the names of `--augmentation`."""


def augmentation_named(name: str) -> Augmentation:
    """Look an augmentation up; InputError lists the known ones."""
    if name not in AUGMENTATIONS:
        raise InputError(f"there is no augmentation '{name}'; choose one of: {', '.join(AUGMENTATIONS)}")
    return AUGMENTATIONS[name]


def uniform(generator: Generator, low: float, high: float) -> float:
    """Draw one number uniformly from [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator))


ELASTIC_MARGIN = 8
"""Pixels: four standard deviations of the strongest elastic displacement above."""


@dataclass(frozen=True)
class Window:
    """Position of a patch in a section: the patch's coordinates x become matrix·x + offset in the section.

    Coordinates are (row, column), the patch's from its centre, the section's from the centre of its first pixel.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]]
    offset: tuple[float, float]
    side: int
    """Pixels of the square patch."""

    @property
    def shrink(self) -> int:
        """Section pixels to average along each axis before interpolation, against aliasing."""
        return max(1, math.floor(min(math.hypot(*row) for row in self.matrix) / 1.5 + 0.5))

    def bounds(self, shape: tuple[int, int], margin: int = ELASTIC_MARGIN) -> tuple[slice, slice]:
        """Rows and columns that the patch needs of a section of a shape, with a margin for a displacement.

        The first ones are divisible by `shrink`, so that the same pixels are averaged in every crop.
        """
        shrink = self.shrink
        margin += 2 * shrink
        reach = (self.side - 1) / 2
        found = []
        for axis in range(2):
            extent = reach * (abs(self.matrix[axis][0]) + abs(self.matrix[axis][1]))
            low = math.floor(self.offset[axis] - extent) - margin
            high = math.ceil(self.offset[axis] + extent) + margin + 1
            size = shape[axis]
            low, high = max(0, min(low, size - 1)) // shrink * shrink, max(1, min(high, size))
            found.append(slice(low, high))
        return found[0], found[1]

    def on_grid(self, grid: int, cell: tuple[float, float]) -> "Window":
        """The same patch in a coarser map of the section, with coarser pixels.

        Parameters
        ----------
        grid : int
            Side of the patch's new pixels in its old ones; must divide `side`.
        cell : (float, float)
            Section pixels per pixel of the map.
        """
        rows = tuple(
            (self.matrix[i][0] * grid / cell[i], self.matrix[i][1] * grid / cell[i]) for i in range(2)
        )
        # Pixel centres: pixel x of the section lies at (x + 1/2) / cell − 1/2 of the map.
        offset = tuple((self.offset[i] + 0.5) / cell[i] - 0.5 for i in range(2))
        return Window((rows[0], rows[1]), (offset[0], offset[1]), self.side // grid)


def draw_window(
    augmentation: Augmentation,
    generator: Generator,
    side: int,
    shape: tuple[int, int],
    scale: tuple[float, float],
) -> Window:
    """Draw the position of a patch: inside the section if it fits, centred if it does not.

    Parameters
    ----------
    side : int
        Pixels of the square patch.
    shape : (int, int)
        Rows and columns of the section.
    scale : (float, float)
        Section pixels per patch pixel, without zoom: working pixel size over the section's own.
    """
    changed = uniform(generator, 0, 1) < augmentation.probability
    if augmentation.rotation and changed:
        angle = uniform(generator, 0, 2 * math.pi)
    else:
        angle = math.pi / 2 * int(uniform(generator, 0, 4))
    zoom = math.exp(uniform(generator, -augmentation.zoom, augmentation.zoom)) if changed else 1.0
    mirror = -1.0 if uniform(generator, 0, 1) < 0.5 else 1.0
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    matrix = (
        (scale[0] * cosine * mirror, -scale[0] * sine),
        (scale[1] * sine * mirror, scale[1] * cosine),
    )
    offset = []
    for axis in range(2):
        reach = (side - 1) / 2 * (abs(matrix[axis][0]) + abs(matrix[axis][1]))
        low, high = reach, shape[axis] - 1 - reach
        share = uniform(generator, 0, 1)
        offset.append(low + (high - low) * share if high > low else (shape[axis] - 1) / 2)
    return Window(matrix, (offset[0], offset[1]), side)


def warp(crop: Tensor, window: Window, corner: tuple[int, int], displacement: Tensor | None = None) -> Tensor:
    """Interpolate a patch bilinearly from a crop of its section, mirrored at its edges.

    Parameters
    ----------
    crop : Tensor, shape (C, h, w), float32
    corner : (int, int)
        Row and column of the crop's first pixel in the section.
    displacement : Tensor, shape (side, side, 2), optional
        Added to the section coordinates (row, column), in pixels.

    Returns
    -------
    Tensor, shape (C, side, side)
    """
    _, h, w = crop.shape
    shrink = min(window.shrink, h, w)
    if shrink > 1:
        crop = F.avg_pool2d(crop, shrink, ceil_mode=True, count_include_pad=False)
    steps = torch.arange(window.side, device=crop.device, dtype=torch.float32) - (window.side - 1) / 2
    (a, b), (c, d) = window.matrix
    rows = a * steps[:, None] + b * steps[None, :] + (window.offset[0] - corner[0])  # (side, side)
    columns = c * steps[:, None] + d * steps[None, :] + (window.offset[1] - corner[1])
    if displacement is not None:
        rows, columns = rows + displacement[..., 0], columns + displacement[..., 1]
    # grid_sample counts from −1 to 1 between the outer edges of the first and the last pixel.
    h, w = crop.shape[1] * shrink, crop.shape[2] * shrink
    positions = torch.stack([(2 * columns + 1) / w - 1, (2 * rows + 1) / h - 1], dim=-1)
    # On a CPU grid_sample runs one thread per image, so the upper and the lower half make a batch.
    parts = 2 if window.side % 2 == 0 else 1
    warped = F.grid_sample(
        crop.expand(parts, *crop.shape),
        positions.view(parts, window.side // parts, window.side, 2),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=False,
    )  # (parts, C, side / parts, side)
    return warped.transpose(0, 1).reshape(-1, window.side, window.side)


def draw_displacement(
    augmentation: Augmentation, generator: Generator, side: int, device: torch.device
) -> Tensor | None:
    """Draw a smooth random displacement, shape (side, side, 2) in pixels, or None (seven times in ten)."""
    if not augmentation.elastic or uniform(generator, 0, 1) >= 0.3 * augmentation.probability:
        return None
    knots = torch.randn(1, 2, 6, 6, generator=generator) * augmentation.elastic
    smooth = F.interpolate(knots, size=(side, side), mode="bicubic", align_corners=True)
    return smooth[0].permute(1, 2, 0).to(device)


def scale_to_unit(images: Tensor) -> Tensor:
    """Scale each section of (B, 2, H, W) to 0…1 by its own extremes; a constant section becomes 0."""
    low = images.amin((-2, -1), keepdim=True)
    return (images - low) / (images.amax((-2, -1), keepdim=True) - low).clamp_min(1e-6)


def normalise(images: Tensor, kind: str) -> Tensor:
    """Normalise each section of (B, 2, H, W); a constant section becomes 0. See `Backbone.normalisation`."""
    if kind == "minmax":
        return scale_to_unit(images)
    centred = images - images.mean((-2, -1), keepdim=True)  # var_mean takes ten times as long on a CPU
    variance = (centred * centred).mean((-2, -1), keepdim=True)
    return centred / variance.sqrt().clamp_min(1e-6)


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Blur (2, H, W) by a Gaussian of σ pixels, mirrored at the edges; σ = 0 changes nothing.

    Sums of shifted images take a sixth of the time of a grouped convolution on a CPU.
    """
    if sigma <= 0:
        return images
    for axis, size in ((-2, images.shape[-2]), (-1, images.shape[-1])):
        reach = max(1, min(math.ceil(3 * sigma), images.shape[-2] - 1, images.shape[-1] - 1))
        weights = [math.exp(-0.5 * (distance / sigma) ** 2) for distance in range(reach + 1)]
        whole = weights[0] + 2 * sum(weights[1:])
        margins = (0, 0, reach, reach) if axis == -2 else (reach, reach, 0, 0)
        padded = F.pad(images[None], margins, mode="reflect")[0]
        images = padded.narrow(axis, reach, size) * (weights[0] / whole)
        for distance in range(1, reach + 1):
            for start in (reach - distance, reach + distance):
                images.add_(padded.narrow(axis, start, size), alpha=weights[distance] / whole)
    return images


def motion_blur(images: Tensor, length: int, angle: float) -> Tensor:
    """Average (2, H, W) along a line of `length` pixels at `angle` radians."""
    reach = length // 2
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1, device=images.device)
    for step in range(-reach, reach + 1):
        kernel[reach + round(step * math.sin(angle)), reach + round(step * math.cos(angle))] = 1.0
    kernel = (kernel / kernel.sum()).expand(2, 1, -1, -1)
    padded = F.pad(images[None], (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(padded, kernel, groups=2)[0]


def change_grey_values(images: Tensor, augmentation: Augmentation, generator: Generator) -> Tensor:
    """Change gamma, blur, contrast, brightness and noise of each pair of (B, 2, H, W); the result is near 0…1."""
    B = images.shape[0]
    images = scale_to_unit(images)
    if augmentation.probability == 0:
        return images

    def draw(low: float, high: float, odds: float = 1.0) -> Tensor:
        """(B,) numbers; 0 for pairs that are not changed."""
        values = low + (high - low) * torch.rand(B, generator=generator)
        kept = torch.rand(B, generator=generator) < odds * augmentation.probability
        return values * kept

    def per_pair(values: Tensor) -> Tensor:
        return values[:, None, None, None].to(images.device)

    if augmentation.gamma:
        images = images.clamp_min(1e-6) ** per_pair(draw(-augmentation.gamma, augmentation.gamma).exp())
    if augmentation.blur:
        strengths = draw(0, augmentation.blur, odds=0.5).tolist()
        images = torch.stack([gaussian_blur(pair, s) for pair, s in zip(images, strengths, strict=True)])
    if augmentation.motion:
        lengths = draw(3, augmentation.motion, odds=0.2)
        angles = draw(0, math.pi)
        for index in lengths.nonzero().flatten().tolist():
            images[index] = motion_blur(images[index], int(lengths[index]), float(angles[index]))
    if augmentation.contrast or augmentation.brightness:
        mean = images.mean((-2, -1), keepdim=True)
        contrast = per_pair(draw(-augmentation.contrast, augmentation.contrast).exp())
        offset = per_pair(draw(-augmentation.brightness, augmentation.brightness))
        images = (images - mean) * contrast + mean + offset
    if augmentation.noise:
        strength = per_pair(draw(0, augmentation.noise))
        seed = int(torch.randint(2**62, (), generator=generator))
        local = torch.Generator(images.device).manual_seed(seed)
        images = images + strength * torch.randn(images.shape, generator=local, device=images.device)
    return images


def match_histogram(images: Tensor, reference: Tensor) -> Tensor:
    """Give each section of `images` the grey-value distribution of the same section of `reference`.

    Both are (B, 2, H, W). 256 quantiles are matched, with linear interpolation between them.
    """
    B, S, H, W = images.shape
    levels = torch.linspace(0, 1, 256, device=images.device)

    def quantiles(values: Tensor) -> Tensor:
        ordered = values.reshape(B * S, -1).sort(1).values  # (B·S, H·W)
        return ordered[:, (levels * (ordered.shape[1] - 1)).long()]

    own, wanted = quantiles(images), quantiles(reference)
    flat = images.reshape(B * S, -1).contiguous()
    above = torch.searchsorted(own.contiguous(), flat).clamp(1, 255)
    low, high = own.gather(1, above - 1), own.gather(1, above)
    share = ((flat - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)
    matched = wanted.gather(1, above - 1) * (1 - share) + wanted.gather(1, above) * share
    return matched.reshape(B, S, H, W)
