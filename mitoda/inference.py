"""Streaming prediction: sections in, sections of foreground probability out, in memory that a few sections fill.

    section j ──read (thread)──normalise──encode──┐
                                                  ├─ decode pair (j − stride, j) ─ add to both ─ section j − stride done
    section j − stride, its features kept ────────┘

Every section is in two pairs, as second and as first (DA-ISC; both visits are averaged). Its features are computed once
and kept until its last pair, where they fit in memory.
"""

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mitoda.blocks import Tiling, blend_window, plan_pairs, plan_tiles
from mitoda.errors import InputError
from mitoda.geometry import Geometry
from mitoda.networks import Backbone, PairNetwork, SectionFeatures
from mitoda.smoothing import smooth_along_sections, smoothing_reach
from mitoda.volumes import Volume

FEATURES_LIMIT = 512 * 2**20
"""Bytes of features kept between the two visits of a section; above it they are computed a second time."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class InferenceSettings:
    """How a volume is predicted."""

    tile: tuple[int, int] | None = None
    """Rows and columns in working pixels; None takes whole sections where they fit the backbone's limit."""
    overlap: int = 128
    """Pixels that neighbouring tiles share."""
    flips: bool = False
    """Average over four mirrored views of each pair (test-time augmentation)."""
    bfloat16: bool = False
    smoothing: float = 0.0
    """Standard deviation of a Gaussian along the sections, in nanometres; it fades out where sections are thicker."""

    def __post_init__(self) -> None:
        if self.tile is not None and min(self.tile) < 1:
            raise InputError(f"--tile is rows and columns in pixels, each at least 1; got {self.tile}")
        if self.smoothing < 0:
            raise InputError(f"--smooth is a length in nanometres, 0 or more; got {self.smoothing}")
        if self.overlap < 0:
            raise InputError(f"--overlap is a number of pixels, 0 or more; got {self.overlap}")


def read_ahead(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Run an iterator on another thread, at most `depth` items ahead; its error is raised here."""
    waiting: queue.Queue[tuple[str, object]] = queue.Queue(depth)
    closed = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not closed.is_set():
            try:
                waiting.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 (raised again on the reading side)
            put("error", error)

    thread = threading.Thread(target=work, name="mitoda-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = waiting.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        closed.set()
        thread.join()


def normalise_section(section: np.ndarray, kind: str) -> np.ndarray:
    """Bring one section to what the network wants, float32; see `networks.Backbone.normalisation`.

    A constant section becomes zeros.
    """
    values = section.astype(np.float32)
    if kind == "minmax":
        low, high = float(values.min()), float(values.max())
        return (values - low) / max(high - low, 1e-6)
    return (values - values.mean()) / max(float(values.std()), 1e-6)


class SectionPredictor:
    """Encodes sections, decodes pairs and gathers probabilities for sections of one shape.

    Parameters
    ----------
    network : PairNetwork
    backbone : Backbone
    shape : (int, int)
        Rows and columns of a section as it comes.
    scale : (float, float)
        Section pixels per working pixel.
    settings : InferenceSettings
    device : torch.device
    """

    def __init__(
        self,
        network: PairNetwork,
        backbone: Backbone,
        shape: tuple[int, int],
        scale: tuple[float, float],
        settings: InferenceSettings,
        device: torch.device,
    ) -> None:
        self.network = network.to(device).eval()
        self.backbone = backbone
        self.shape = shape
        self.settings = settings
        self.device = device
        rows, columns = (max(1, round(size / factor)) for size, factor in zip(shape, scale, strict=True))
        self.working = (rows, columns)
        self.tiling = self._plan_tiles()
        self.views: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if settings.flips else [()]
        grid = network.grid
        tile = (self.tiling.tile[0] // grid, self.tiling.tile[1] // grid)
        overlap = self.tiling.overlap // grid
        window = np.outer(blend_window(tile[0], overlap), blend_window(tile[1], overlap))
        self.window = torch.from_numpy(window).to(device) if len(self.tiling.corners) > 1 else None
        if self.window is not None:
            self.weight = torch.zeros(self.output_shape, device=device)
            for region in self._regions():
                self.weight[region] += self.window

    def _plan_tiles(self) -> Tiling:
        tile = self.settings.tile
        limit = self.backbone.whole_section_pixels
        if tile is None and self.working[0] * self.working[1] > limit:
            side = int(limit**0.5)
            tile = (side, side)
        # Instance normalisation needs more than one pixel where the network is coarsest; two along each axis.
        least = 2 * self.network.multiple
        if tile is not None:
            tile = (max(tile[0], least), max(tile[1], least))
        shape = (max(self.working[0], least), max(self.working[1], least))
        return plan_tiles(shape, tile, self.settings.overlap, self.network.multiple)

    @property
    def output_shape(self) -> tuple[int, int]:
        """Rows and columns of the padded section on the network's output grid."""
        return self.tiling.padded[0] // self.network.grid, self.tiling.padded[1] // self.network.grid

    def _regions(self) -> list[tuple[slice, slice]]:
        """Where each tile lies on the output grid."""
        grid = self.network.grid
        rows, columns = self.tiling.tile[0] // grid, self.tiling.tile[1] // grid
        return [
            (slice(row // grid, row // grid + rows), slice(column // grid, column // grid + columns))
            for row, column in self.tiling.corners
        ]

    def prepare(self, section: np.ndarray) -> Tensor:
        """Normalise, resample to the working pixel size and mirror to the padded shape: (1, 1, H, W)."""
        values = normalise_section(section, self.backbone.normalisation)
        if self.working != self.shape:
            image = torch.from_numpy(values)[None, None]
            values = F.interpolate(image, self.working, mode="bilinear", antialias=True)[0, 0].numpy()
        below, right = (whole - size for whole, size in zip(self.tiling.padded, self.working, strict=True))
        if below or right:
            values = np.pad(values, ((0, below), (0, right)), mode="reflect")
        return torch.from_numpy(values)[None, None].to(self.device)

    @torch.inference_mode()
    def encode(self, section: Tensor) -> list[SectionFeatures]:
        """Encode every view of every tile of a prepared section."""
        rows, columns = self.tiling.tile
        encoded = []
        for row, column in self.tiling.corners:
            tile = section[..., row : row + rows, column : column + columns]
            for view in self.views:
                with self._autocast():
                    encoded.append(self.network.encode(tile.flip(view) if view else tile))
        return encoded

    @torch.inference_mode()
    def decode(self, first: list[SectionFeatures], second: list[SectionFeatures]) -> tuple[Tensor, Tensor]:
        """Foreground probability of both sections of a pair on the padded output grid, float32 (h, w)."""
        gathered = torch.zeros(2, *self.output_shape, device=self.device)
        features = iter(zip(first, second, strict=True))
        for region in self._regions():
            tile = torch.zeros_like(gathered[0][region]).expand(2, -1, -1).clone()
            for view in self.views:
                with self._autocast():
                    output = self.network.decode(*next(features), residual=False)
                for index, logits in enumerate((output.first, output.second)):
                    foreground = torch.sigmoid(logits[0, 1].float() - logits[0, 0].float())
                    tile[index] += foreground.flip(view) if view else foreground
            tile /= len(self.views)
            gathered[(slice(None), *region)] += tile if self.window is None else tile * self.window
        if self.window is not None:
            gathered /= self.weight
        return gathered[0], gathered[1]

    @torch.inference_mode()
    def finish(self, probability: Tensor) -> np.ndarray:
        """Bring a map on the output grid back to the section's own pixels, float32 (rows, columns)."""
        full = probability[None, None]
        if self.network.grid > 1:
            full = F.interpolate(full, self.tiling.padded, mode="bilinear", align_corners=False)
        full = full[..., : self.working[0], : self.working[1]]
        if self.working != self.shape:
            full = F.interpolate(full, self.shape, mode="bilinear", antialias=True)
        return full[0, 0].cpu().numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16)


def check_volume(volume: Volume) -> tuple[float, float, float]:
    """Return the volume's voxel size; InputError where nobody has said it."""
    if volume.voxel_size is None:
        raise InputError(
            f"the voxel size of {volume.name} is not in its metadata; give --voxel-size Z Y X in nanometres "
            "(section thickness, then pixel size along rows and columns, e.g. --voxel-size 50 4.6 4.6)"
        )
    return volume.voxel_size


def predict_sections(
    network: PairNetwork,
    backbone: Backbone,
    geometry: Geometry,
    volume: Volume,
    settings: InferenceSettings,
    device: torch.device,
    start: int = 0,
) -> Iterator[np.ndarray]:
    """Yield the foreground probability of section `start`, `start` + 1, …, float32 in the volume's own pixels.

    Parameters
    ----------
    network : PairNetwork
    backbone : Backbone
        The network's recipe.
    geometry : Geometry
        Pixel size and pair spacing the network was trained at.
    volume : Volume
        Its voxel size must be known.
    start : int
        First section wanted; what comes out does not depend on it.

    Raises
    ------
    InputError
        If the voxel size is unknown.
    """
    voxel_size = check_volume(volume)
    predictor = SectionPredictor(
        network, backbone, volume.shape[1:], geometry.scale(voxel_size), settings, device
    )
    sigma = settings.smoothing / voxel_size[0]
    first = max(0, start - smoothing_reach(sigma))
    stride = geometry.stride(voxel_size, volume.shape[0])
    with closing(predict_maps(predictor, volume, stride, first)) as maps:
        for smoothed in smooth_along_sections(maps, sigma, first, start):
            yield predictor.finish(smoothed)


def predict_maps(
    predictor: SectionPredictor, volume: Volume, stride: int, start: int = 0
) -> Generator[Tensor, None, None]:
    """Yield the foreground probability of section `start`, `start` + 1, … on the predictor's padded output grid.

    Both visits of a section are averaged. See `predict_sections`.
    """
    sections = volume.shape[0]
    pairs = [pair for pair in plan_pairs(sections, stride) if max(pair) >= start]
    last_use = {k: second for pair in pairs for second in (pair[1],) for k in pair}
    wanted = sorted(last_use)
    kept: dict[int, list[SectionFeatures]] = {}
    prepared: dict[int, Tensor] = {}
    sums: dict[int, tuple[Tensor, int]] = {}
    following = start
    # Closed here, not when the garbage is collected: an error that is kept would keep the thread.
    with closing(read_ahead((k, predictor.prepare(volume.read(k))) for k in wanted)) as sections_ahead:
        for j, section in sections_ahead:
            features = predictor.encode(section)
            if (stride + 1) * _bytes(features) <= FEATURES_LIMIT:
                kept[j] = features
            else:
                prepared[j] = section
            for first, second in (pair for pair in pairs if pair[1] == j):
                other = features if first == j else kept.get(first) or predictor.encode(prepared[first])
                maps = predictor.decode(other, features)
                for k, probability in zip((first, second), maps, strict=True):
                    total, visits = sums.get(k, (0.0, 0))
                    sums[k] = (total + probability, visits + 1)
            while following < sections and last_use[following] <= j:
                total, visits = sums.pop(following)
                yield total / visits
                following += 1
            for done in [k for k in (*kept, *prepared) if last_use[k] <= j]:
                kept.pop(done, None)
                prepared.pop(done, None)
                if done < start:
                    sums.pop(done, None)


def _bytes(features: list[SectionFeatures]) -> int:
    return sum(tensor.numel() * tensor.element_size() for section in features for tensor in section)
