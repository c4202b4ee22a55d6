"""Random batches of patches for training, read ahead by other threads.

Reading touches the volume and runs on other threads; warping and changes of grey values follow with the same random
generator. So a step's batch depends on the seed and the step alone, never on the scheduling of threads.
"""

import math
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

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
from mitoda.data.painted import BACKGROUND, HELD_BACK, MITOCHONDRION, UNLABELLED
from mitoda.data.pairs import (
    IGNORE,
    LabelledBatch,
    LabelledPairs,
    PaintedPairs,
    Pairs,
    PseudoLabels,
    UnlabelledBatch,
    UnlabelledPairs,
    Wanted,
)


@dataclass(frozen=True)
class Crop:
    """The bounding box of a patch, read from both sections of a pair."""

    images: np.ndarray
    """(2, h, w) in the volume's dtype."""
    labels: np.ndarray | None
    """(2, h, w) in the labels' dtype."""
    sections: tuple[int, int]
    window: Window
    corner: tuple[int, int]
    """Row and column of its first pixel in the section."""
    painted: bool = False
    """The labels are the classes of `PaintedLabels`."""


@dataclass(frozen=True)
class Draw:
    """What was read for a batch of one domain, and the generator of its further random numbers."""

    crops: list[Crop]
    generator: Generator


def seeded(*numbers: int) -> Generator:
    """Return a CPU generator whose seed mixes all the numbers."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state >> np.uint64(1)))


def read_batch(
    pairs: Pairs,
    batch_size: int,
    side: int,
    augmentation: Augmentation,
    generator: Generator,
    *,
    hold_back: bool = False,
) -> Draw:
    """Draw pairs and windows, and read their bounding boxes; see `BatchStream.batch` for `hold_back`."""
    crops = []
    for _ in range(batch_size):
        one = _draw_source(pairs, generator)
        shape = one.volume.shape[1:]
        if isinstance(one, PaintedPairs):
            sections, window = draw_painted(one, side, augmentation, generator, hold_back=hold_back)
        else:
            sections = one.sections(int(torch.randint(one.count, (), generator=generator)))
            window = draw_window(augmentation, generator, side, shape, one.scale)
        rows, columns = window.bounds(shape)
        images = np.stack([one.volume.read(section, rows, columns) for section in sections])
        labels = None
        if isinstance(one, LabelledPairs) and one.labels is not None:
            labels = np.stack([one.labels.read(section, rows, columns) for section in sections])
        painted = isinstance(one, PaintedPairs)
        crops.append(Crop(images, labels, sections, window, (rows.start, columns.start), painted))
    return Draw(crops, generator)


def draw_painted(
    pairs: PaintedPairs,
    side: int,
    augmentation: Augmentation,
    generator: Generator,
    *,
    hold_back: bool = False,
) -> tuple[tuple[int, int], Window]:
    """Draw a pair with a painted section, and a window that overlaps the box of what is learnt by a quarter or more.

    Half of the pairs are in reverse order, so that a section at an end of the stack is learnt as first and as second.
    The quarter is of the smaller of box and window. After 30 windows without such an overlap the last one is taken.
    """
    painted = sorted(pairs.painted.index)
    section = painted[int(torch.randint(len(painted), (), generator=generator))]
    both = pairs.pairs_of(section)
    first, second = both[int(torch.randint(len(both), (), generator=generator))]
    box = pairs.painted.learnt_box(section, hold_back)
    shape = pairs.volume.shape[1:]
    for _ in range(30):
        window = draw_window(augmentation, generator, side, shape, pairs.scale)
        bounds = window.bounds(shape)
        common = math.prod(
            max(0, min(a.stop, b.stop) - max(a.start, b.start)) for a, b in zip(bounds, box, strict=True)
        )
        if common >= 0.25 * min(math.prod(a.stop - a.start for a in place) for place in (bounds, box)):
            break
    reverse = bool(torch.randint(2, (), generator=generator))
    return ((second, first) if reverse else (first, second)), window


def _draw_source(pairs: Pairs, generator: Generator) -> Pairs:
    """Draw one of several sources; a single one takes no random number."""
    if not isinstance(pairs, LabelledPairs) or not pairs.others:
        return pairs
    every = pairs.every()
    return every[int(torch.randint(len(every), (), generator=generator))]


def warp_batch(
    draw: Draw, augmentation: Augmentation, device: torch.device, *, hold_back: bool = False
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Interpolate the patches.

    Parameters
    ----------
    hold_back : bool
        Treat the held-back part of painted labels as unlabelled.

    Returns
    -------
    images : Tensor, shape (B, 2, side, side)
        Raw grey values.
    coverage : Tensor or None
        Share of each pixel that is mitochondrion, if there are labels.
    known : Tensor or None
        Share of each pixel that is labelled, if some labels are painted.
    """
    images, coverage, known = [], [], []
    for crop in draw.crops:
        stacked = [torch.from_numpy(crop.images.astype(np.float32)).to(device)]
        if crop.labels is not None:
            stacked += [torch.from_numpy(one).to(device) for one in _masks_of(crop, hold_back)]
        displacement = draw_displacement(augmentation, draw.generator, crop.window.side, device)
        warped = warp(torch.cat(stacked), crop.window, crop.corner, displacement)
        images.append(warped[:2])
        if crop.labels is not None:
            coverage.append(warped[2:4].clamp(0, 1))
            known.append(warped[4:].clamp(0, 1) if crop.painted else torch.ones_like(coverage[-1]))
    return (
        torch.stack(images),
        torch.stack(coverage) if coverage else None,
        torch.stack(known) if any(crop.painted for crop in draw.crops) else None,
    )


def _masks_of(crop: Crop, hold_back: bool) -> list[np.ndarray]:
    """Mitochondrion and, of painted labels, what is labelled: (2, h, w) each, float32."""
    labels = crop.labels if crop.labels is not None else np.zeros(0)
    if not crop.painted:
        return [(labels != 0).astype(np.float32)]
    mitochondrion, known = labels == MITOCHONDRION, (labels == MITOCHONDRION) | (labels == BACKGROUND)
    if not hold_back:
        mitochondrion, known = mitochondrion | (labels == MITOCHONDRION + HELD_BACK), labels != UNLABELLED
    return [mitochondrion.astype(np.float32), known.astype(np.float32)]


def warp_pseudo_labels(draw: Draw, pseudo: PseudoLabels, grid: int, device: torch.device) -> Tensor:
    """Cut pseudo labels for the patches of a draw, on the network's output grid: (B, 2, side/grid, side/grid), int64.

    Probabilities are interpolated before they are cut into classes, so that boundaries keep their position between
    grid pixels. All sections of the draw must have pseudo labels.
    """
    found = []
    for crop in draw.crops:
        window = crop.window.on_grid(grid, pseudo.cell)
        classes = torch.full((2, window.side, window.side), IGNORE, dtype=torch.int64, device=device)
        for index, section in enumerate(crop.sections):
            number = pseudo.sections.index(section)
            rows, columns = window.bounds(pseudo.probabilities.shape[1:])
            part = torch.from_numpy(pseudo.probabilities[number, rows, columns].astype(np.float32) / 255)
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
    """See `Backbone.normalisation`."""
    histogram_matching: float = 0.0
    """Share of steps in which the source takes the grey-value distribution of the target's patches."""
    seed: int = 0
    grid: int = 1
    """Side of the network's output pixels in working pixels, for pseudo labels."""


SOURCE, TARGET, MATCHING = range(3)
"""Uses of random numbers; each has its own seed at every step."""


class BatchStream:
    """Batches of source and target by step, read ahead by other threads; close it, or use it in a `with` statement.

    Parameters
    ----------
    source, target : pairs or None
        None if the domain is never used.
    settings : BatchSettings
    device : torch.device
        Where the batches are made.
    wants : callable
        Tells which domains a step uses; the others are not read. For coming steps it may be a guess.
    workers : int
        Threads that read, at most two steps ahead each.
    """

    def __init__(
        self,
        source: LabelledPairs | None,
        target: UnlabelledPairs | None,
        settings: BatchSettings,
        device: torch.device,
        wants: Callable[[int], Wanted] = lambda step: Wanted(source=True, target=True),
        workers: int = 2,
    ) -> None:
        self._pairs: tuple[Pairs | None, Pairs | None] = (source, target)
        self._settings = settings
        self._device = device
        self._wants = wants
        self._ahead = 2 * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="mitoda-read")
        self._waiting: dict[tuple[int, int, bool, range | None], Future[Draw]] = {}
        """By step, domain, whether a part of painted labels is held back, and the sections with pseudo labels."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading ahead."""
        self._pool.shutdown(cancel_futures=True)

    def batch(
        self, step: int, pseudo_labels: PseudoLabels | None = None, *, hold_back: bool = False
    ) -> tuple[LabelledBatch | None, UnlabelledBatch | None]:
        """Return the batches of a step; None for a domain it does not use.

        Parameters
        ----------
        step : int
            Steps are read ahead in ascending order.
        pseudo_labels : PseudoLabels, optional
            Target batches carry them, and are drawn from the sections that have some.
        hold_back : bool
            Leave out the held-back part of painted labels.
        """
        within = None if pseudo_labels is None else pseudo_labels.sections
        for coming in range(step, step + self._ahead + 1):
            self._read_ahead(coming, hold_back, within)
        used = self._used(step)
        source, target = (
            self._waiting.pop((step, d, hold_back, within)).result() if used[d] else None
            for d in (SOURCE, TARGET)
        )
        self._waiting = {key: draw for key, draw in self._waiting.items() if key[0] > step}
        return self._assemble(source, target, step, pseudo_labels, hold_back)

    def _used(self, step: int) -> tuple[bool, bool]:
        """Whether source and target are read for a step."""
        wanted = self._wants(step)
        source, target = (pairs is not None for pairs in self._pairs)
        return source and wanted.source, target and (wanted.target or (wanted.source and self._matches(step)))

    def _matches(self, step: int) -> bool:
        """Whether the source takes the grey values of the target at a step."""
        share = self._settings.histogram_matching
        return (
            share > 0 and float(torch.rand((), generator=seeded(self._settings.seed, MATCHING, step))) < share
        )

    def _read_ahead(self, step: int, hold_back: bool, within: range | None) -> None:
        """Start to read what a step uses."""
        for domain, (pairs, used) in enumerate(zip(self._pairs, self._used(step), strict=True)):
            key = (step, domain, hold_back, within)
            if pairs is not None and used and key not in self._waiting:
                self._waiting[key] = self._pool.submit(self._read, pairs, *key)

    def _read(self, pairs: Pairs, step: int, domain: int, hold_back: bool, within: range | None) -> Draw:
        s = self._settings
        if isinstance(pairs, UnlabelledPairs) and within is not None:
            pairs = replace(pairs, within=within)
        generator = seeded(s.seed, domain, step)
        return read_batch(pairs, s.batch_size, s.side, s.augmentation, generator, hold_back=hold_back)

    def _assemble(
        self,
        source: Draw | None,
        target: Draw | None,
        step: int,
        pseudo_labels: PseudoLabels | None,
        hold_back: bool,
    ) -> tuple[LabelledBatch | None, UnlabelledBatch | None]:
        """Warp patches and change their grey values."""
        s = self._settings
        labelled, unlabelled, raw = None, None, None
        if target is not None:
            raw, _, _ = warp_batch(target, s.augmentation, self._device)
        if source is not None:
            images, coverage, known = warp_batch(source, s.augmentation, self._device, hold_back=hold_back)
            if raw is not None and self._matches(step):
                images = match_histogram(images, raw)
            images = change_grey_values(images, s.augmentation, source.generator)
            if coverage is None:
                raise ValueError("the source has no labels")
            labelled = LabelledBatch(normalise(images, s.normalisation), coverage, known)
        if target is not None and raw is not None and self._wants(step).target:
            raw = change_grey_values(raw, s.augmentation, target.generator)
            pseudo = None
            if pseudo_labels is not None:
                pseudo = warp_pseudo_labels(target, pseudo_labels, s.grid, self._device)
            unlabelled = UnlabelledBatch(normalise(raw, s.normalisation), pseudo)
        return labelled, unlabelled
