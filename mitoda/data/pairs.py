"""Random pairs of sections: what a training step sees of a volume.

A draw has two halves. `read` touches the volume and belongs on other threads; `assemble` turns what was read into a
batch of tensors with the same random generator, so that a step's batch depends on the seed and the step alone and
never on how threads were scheduled.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from mitoda.data.augmentation import (
    Augmentation,
    Window,
    change_grey_values,
    draw_displacement,
    draw_window,
    match_histogram,
    normalise,
    warp,
)
from mitoda.errors import InputError
from mitoda.volumes import Volume

IGNORE = 255
"""Label of pixels that no loss looks at."""


@dataclass(frozen=True)
class LabelledBatch:
    """Pairs of the source domain."""

    images: Tensor
    """(B, 2, H, W), normalised grey values of sections k and k + stride."""
    coverage: Tensor
    """(B, 2, H, W), 0 to 1: how much of each pixel is mitochondrion."""


@dataclass(frozen=True)
class UnlabelledBatch:
    """Pairs of the target domain. There is no field for labels, so none can reach a method."""

    images: Tensor
    """(B, 2, H, W), normalised grey values."""
    pseudo_labels: Tensor | None = None
    """(B, 2, h, w) on the network's output grid, int64: what the method itself made of the unlabelled volume (0, 1, or
    `IGNORE`); None before it has."""


@dataclass(frozen=True)
class PseudoLabels:
    """What a method believes of an unlabelled volume, to be cut into patches."""

    probabilities: np.ndarray
    """(sections, h, w), uint8, foreground probability × 255 on a grid coarser than the volume's pixels."""
    first_section: int
    """Number of the first of them in the volume."""
    cell: tuple[float, float]
    """Volume pixels per grid pixel, along rows and columns."""
    low: float
    """Below this probability a pixel is background."""
    high: float
    """From this probability on it is mitochondrion; between the two it is ignored."""


@dataclass(frozen=True)
class Pairs:
    """All pairs of sections of one volume, and how a patch is cut from them.

    Parameters
    ----------
    volume : Volume
    stride : int
        Sections between the two of a pair; 0 pairs each section with itself (a volume of one section).
    scale : (float, float)
        Section pixels per working pixel, along rows and columns.
    """

    volume: Volume
    stride: int
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.stride < self.volume.shape[0]:
            raise InputError(
                f"{self.volume.name} has {self.volume.shape[0]} sections, too few for pairs "
                f"{self.stride} sections apart; give a smaller stride"
            )

    @property
    def count(self) -> int:
        """Number of pairs."""
        return self.volume.shape[0] - self.stride


@dataclass(frozen=True)
class LabelledPairs(Pairs):
    """Pairs whose labels are known; `labels` reads non-zero where there is mitochondrion."""

    labels: Volume | None = None
    others: tuple["LabelledPairs", ...] = ()
    """Further sources, drawn from as often as this one whatever their size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is None:
            raise InputError(f"{self.volume.name} needs labels to be a source; give IMAGES:LABELS")
        if self.labels.shape != self.volume.shape:
            raise InputError(
                f"labels and images differ in shape: {self.labels.name} is {self.labels.shape}, "
                f"{self.volume.name} is {self.volume.shape} (sections, rows, columns)"
            )

    def every(self) -> tuple["LabelledPairs", ...]:
        """This source and the others."""
        return (self, *self.others)


@dataclass(frozen=True)
class UnlabelledPairs(Pairs):
    """Pairs nobody has labelled."""


@dataclass(frozen=True)
class Crop:
    """What was read for one pair: the bounding box of a patch in both sections."""

    images: np.ndarray
    """(2, h, w) in the volume's dtype."""
    labels: np.ndarray | None
    """(2, h, w), 0 or 1."""
    sections: tuple[int, int]
    window: Window
    corner: tuple[int, int]


@dataclass(frozen=True)
class Draw:
    """All that was read for one batch of one domain, and the generator to go on with."""

    crops: list[Crop]
    generator: Generator


class Draws(NamedTuple):
    """All that was read for one step; None of a domain that is not used."""

    source: Draw | None
    target: Draw | None


class Wanted(NamedTuple):
    """The domains whose patches a step learns from."""

    source: bool
    target: bool


def seeded(*numbers: int) -> Generator:
    """Return a CPU generator whose seed mixes all the numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))


def read_batch(
    pairs: Pairs, batch_size: int, side: int, augmentation: Augmentation, generator: Generator
) -> Draw:
    """Draw pairs and places, and read what they need of the volume."""
    crops = []
    for _ in range(batch_size):
        one = _one_of(pairs, generator)
        shape = one.volume.shape[1:]
        k = int(torch.randint(one.count, (), generator=generator))
        window = draw_window(augmentation, generator, side, shape, one.scale)
        rows, columns = window.bounds(shape)
        sections = (k, k + one.stride)
        images = np.stack([one.volume.read(section, rows, columns) for section in sections])
        labels = None
        if isinstance(one, LabelledPairs) and one.labels is not None:
            labels = np.stack([one.labels.read(section, rows, columns) for section in sections])
        crops.append(Crop(images, labels, sections, window, (rows.start, columns.start)))
    return Draw(crops, generator)


def _one_of(pairs: Pairs, generator: Generator) -> Pairs:
    """Draw one of several sources; a single one costs no draw, so that its run is what it always was."""
    if not isinstance(pairs, LabelledPairs) or not pairs.others:
        return pairs
    every = pairs.every()
    return every[int(torch.randint(len(every), (), generator=generator))]


def warp_batch(draw: Draw, augmentation: Augmentation, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Interpolate the patches: raw grey values (B, 2, side, side), and label coverage where there are labels."""
    images, coverage = [], []
    for crop in draw.crops:
        stacked = torch.from_numpy(crop.images.astype(np.float32)).to(device)
        if crop.labels is not None:
            labels = torch.from_numpy((crop.labels != 0).astype(np.float32)).to(device)
            stacked = torch.cat([stacked, labels])
        displacement = draw_displacement(augmentation, draw.generator, crop.window.side, device)
        warped = warp(stacked, crop.window, crop.corner, displacement)
        images.append(warped[:2])
        if crop.labels is not None:
            coverage.append(warped[2:].clamp(0, 1))
    return torch.stack(images), torch.stack(coverage) if coverage else None


def warp_pseudo_labels(draw: Draw, pseudo: PseudoLabels, grid: int, device: torch.device) -> Tensor:
    """Cut pseudo labels for the patches of a draw, on the network's output grid: (B, 2, side/grid, side/grid), int64.

    Probabilities are interpolated first and cut into classes afterwards, so that boundaries keep their place between
    grid pixels. Sections without pseudo labels are ignored.
    """
    found = []
    for crop in draw.crops:
        window = crop.window.on_grid(grid, pseudo.cell)
        classes = torch.full((2, window.side, window.side), IGNORE, dtype=torch.int64, device=device)
        for index, section in enumerate(crop.sections):
            place = section - pseudo.first_section
            if not 0 <= place < len(pseudo.probabilities):
                continue
            rows, columns = window.bounds(pseudo.probabilities.shape[1:])
            part = torch.from_numpy(pseudo.probabilities[place, rows, columns].astype(np.float32) / 255)
            warped = warp(part[None].to(device), window, (rows.start, columns.start))[0]
            classes[index][warped < pseudo.low] = 0
            classes[index][warped >= pseudo.high] = 1
        found.append(classes)
    return torch.stack(found)


@dataclass(frozen=True)
class BatchSettings:
    """How batches are drawn."""

    batch_size: int
    side: int
    """Pixels of the square patch at the working pixel size."""
    augmentation: Augmentation
    normalisation: str
    """ "standard" or "minmax"; see `networks.Backbone`."""
    histogram_matching: float = 0.0
    """Share of steps in which the source takes the grey-value distribution of the target's patches."""
    seed: int = 0
    grid: int = 1
    """Side of the network's output pixels in working pixels, for pseudo labels."""


class BatchStream:
    """Batches of source and target for step after step, read ahead by other threads.

    Parameters
    ----------
    source : LabelledPairs or None
        None where the target is adapted to without it.
    target : UnlabelledPairs, optional
        Where the method wants none, nothing of it is read.
    settings : BatchSettings
    device : torch.device
        Where the batches are made.
    workers : int
        Threads that read.
    """

    def __init__(
        self,
        source: LabelledPairs | None,
        target: UnlabelledPairs | None,
        settings: BatchSettings,
        device: torch.device,
        workers: int = 2,
    ) -> None:
        self.source = source
        self.target = target
        self.settings = settings
        self.device = device
        self.workers = workers
        self.pseudo_labels: PseudoLabels | None = None
        """Set by the loop when a method has labelled the target; from then on target batches carry them."""
        self.wanted = Wanted(source=True, target=True)
        """Set by the loop before each step; of a domain that is not wanted no batch is made."""

    def read(self, step: int) -> Draws:
        """Read what step `step` needs, of each domain."""
        s = self.settings

        def draw(pairs: Pairs | None, domain: int) -> Draw | None:
            if pairs is None:
                return None
            return read_batch(pairs, s.batch_size, s.side, s.augmentation, seeded(s.seed, domain, step))

        return Draws(draw(self.source, 0), draw(self.target, 1))

    def assemble(self, draws: Draws, step: int) -> tuple[LabelledBatch | None, UnlabelledBatch | None]:
        """Make the batch of a step from what was read for it."""
        s = self.settings
        draws = self._wanted_of(draws)
        images, raw, coverage = None, None, None
        if draws.source is not None:
            images, coverage = warp_batch(draws.source, s.augmentation, self.device)
        if draws.target is not None:
            raw, _ = warp_batch(draws.target, s.augmentation, self.device)
        if images is not None and raw is not None:
            matching = float(torch.rand((), generator=seeded(s.seed, 2, step)))
            if matching < s.histogram_matching:
                images = match_histogram(images, raw)
        source, target = None, None
        if draws.target is not None and raw is not None:
            raw = change_grey_values(raw, s.augmentation, draws.target.generator)
            pseudo = None
            if self.pseudo_labels is not None:
                pseudo = warp_pseudo_labels(draws.target, self.pseudo_labels, s.grid, self.device)
            target = UnlabelledBatch(normalise(raw, s.normalisation), pseudo)
        if draws.source is not None and images is not None:
            images = change_grey_values(images, s.augmentation, draws.source.generator)
            if coverage is None:
                raise ValueError("the source has no labels")
            source = LabelledBatch(normalise(images, s.normalisation), coverage)
        return source, target

    def _wanted_of(self, draws: Draws) -> Draws:
        """Leave out what the step does not want: a twentieth of a step or more goes into warping patches."""
        matched = self.wanted.source and self.settings.histogram_matching > 0
        return Draws(
            draws.source if self.wanted.source else None,
            draws.target if self.wanted.target or matched else None,
        )

    def batches(self, start: int) -> Iterator[tuple[LabelledBatch | None, UnlabelledBatch | None]]:
        """Yield the batches of steps `start`, `start` + 1, … without end; closing the iterator stops the threads."""
        ahead = 2 * self.workers
        with ThreadPoolExecutor(self.workers, thread_name_prefix="mitoda-read") as pool:
            waiting: list[Future[Draws]] = [pool.submit(self.read, start + i) for i in range(ahead)]
            step = start
            try:
                while True:
                    draws = waiting.pop(0).result()
                    waiting.append(pool.submit(self.read, step + ahead))
                    yield self.assemble(draws, step)
                    step += 1
            finally:
                for future in waiting:
                    future.cancel()
