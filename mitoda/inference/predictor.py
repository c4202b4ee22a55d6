"""A network over whole sections: normalised, resampled, cut into tiles and views, batched, and put together again."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mitoda.inference.grey_values import normalise_section
from mitoda.inference.settings import PredictionSettings
from mitoda.inference.tiling import Tiling, blend_window, even_tile, plan_tiles
from mitoda.models.model import Model
from mitoda.models.pair_networks import PairNetwork, PairOutput, SectionFeatures

Item = TypeVar("Item")

LARGE = 2**25
"""Working pixels of a section above which it waits in half precision, and its tiles are encoded when they are decoded,
twice in all, which takes a tenth longer: 5800 × 5800. The features of 12,000 × 12,000 pixels take 1.8 GB in float32."""
TILE = 2048
"""Side of the tiles of a section that is too large to be predicted as a whole, in working pixels. Larger ones are no
faster, and take more memory: decoding one of this side takes 0.25 GB on a CPU."""


@dataclass(frozen=True, eq=False)
class LazyFeatures:
    """Features of a large section, which are computed anew at each iteration."""

    predictor: "SectionPredictor"
    section: Tensor
    """As `SectionPredictor.prepare` returns it."""

    def __iter__(self) -> Iterator[SectionFeatures]:
        return self.predictor.encode_in_turn([self.section])


class Piece(NamedTuple):
    """One view of one tile of one pair."""

    pair: int
    """Index of its pair among those predicted together."""
    tile: int
    """Index of its tile."""
    view: tuple[int, ...]
    """Axes along which it is mirrored."""
    first: SectionFeatures
    second: SectionFeatures


class SectionPredictor:
    """Encodes sections and decodes pairs of them into probabilities, for sections of one shape.

    Parameters
    ----------
    model : Model
        Stays as it is; a copy of its network computes.
    shape : (int, int)
        Rows and columns of a section.
    scale : (float, float)
        Section pixels per working pixel.
    settings : PredictionSettings
    """

    def __init__(
        self,
        model: Model,
        shape: tuple[int, int],
        scale: tuple[float, float],
        settings: PredictionSettings = PredictionSettings(),
    ) -> None:
        self.network = for_inference(model.network, model.bfloat16, model.device)
        self.backbone = model.backbone
        self.bfloat16 = model.bfloat16
        self.shape = shape
        self.settings = settings
        self.device = model.device
        rows, columns = (max(1, round(size / factor)) for size, factor in zip(shape, scale, strict=True))
        self.working = (rows, columns)
        self.tiling = self._plan_tiles()
        self.views: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)] if settings.flips else [()]
        self.regions = self._place_tiles()
        self.pieces = [(tile, view) for tile in range(len(self.regions)) for view in self.views]
        """Tile and view of each piece of a section, in the order they are encoded in."""
        self.window, self.weight = self._blend()
        self.encode_batch: Callable[..., SectionFeatures] = self.network.encode
        self.decode_batch: Callable[..., PairOutput] = self.network.decode
        self.batch_size = settings.batch_size or self._fitting_batch_size()

    def _plan_tiles(self) -> Tiling:
        tile = self.settings.tile
        limit = self.backbone.whole_section_pixels
        if tile is None and self.working[0] * self.working[1] > limit:
            side = min(TILE, int(limit**0.5))
            rows, columns = (even_tile(size, side, self.settings.overlap) for size in self.working)
            tile = (rows, columns)
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

    def _place_tiles(self) -> list[tuple[slice, slice]]:
        """Where each tile lies on the output grid."""
        grid = self.network.grid
        rows, columns = self.tiling.tile[0] // grid, self.tiling.tile[1] // grid
        return [
            (slice(row // grid, row // grid + rows), slice(column // grid, column // grid + columns))
            for row, column in self.tiling.corners
        ]

    def _blend(self) -> tuple[Tensor | None, Tensor | None]:
        """Weights within a tile, and their sum over all tiles, on the output grid; None of a single tile."""
        if len(self.regions) == 1:
            return None, None
        tile = (self.tiling.tile[0] // self.network.grid, self.tiling.tile[1] // self.network.grid)
        overlap = self.tiling.overlap // self.network.grid
        window = torch.from_numpy(np.outer(blend_window(tile[0], overlap), blend_window(tile[1], overlap)))
        weight = torch.zeros(self.output_shape)
        for region in self.regions:
            weight[region] += window
        return window.to(self.device), weight.to(self.device)

    def prepare(self, section: np.ndarray) -> Tensor:
        """Normalise, resample to the working pixel size and mirror to the padded shape: (1, 1, H, W).

        float32, or float16 where the section is large.
        """
        values = normalise_section(section, self.backbone.normalisation)
        if self.working != self.shape:
            image = torch.from_numpy(values)[None, None]
            values = F.interpolate(image, self.working, mode="bilinear", antialias=True)[0, 0].numpy()
        if self.is_large:
            values = values.astype(np.float16)
        below, right = (whole - size for whole, size in zip(self.tiling.padded, self.working, strict=True))
        if below or right:
            values = np.pad(values, ((0, below), (0, right)), mode="reflect")
        prepared = torch.from_numpy(values)[None, None]
        if self.device.type == "cuda":  # from pinned memory the copy runs beside the computation
            prepared = prepared.pin_memory()
        return prepared.to(self.device, non_blocking=True)

    @property
    def is_large(self) -> bool:
        """Whether the features of a whole section would take too much memory."""
        return self.working[0] * self.working[1] > LARGE

    @torch.inference_mode()
    def encode(self, sections: Sequence[Tensor]) -> list[list[SectionFeatures]]:
        """Encode every view of every tile of prepared sections; return the pieces of each section, tile by tile."""
        return list(batched(self.encode_in_turn(sections), len(self.pieces)))

    def encode_in_turn(self, sections: Sequence[Tensor]) -> Iterator[SectionFeatures]:
        """Encode the pieces of prepared sections as they are needed, a batch at a time."""
        rows, columns = self.tiling.tile
        crops = (
            section[..., row : row + rows, column : column + columns].float()
            for section in sections
            for row, column in self.tiling.corners
        )
        pieces = (crop.flip(view) if view else crop for crop in crops for view in self.views)
        for batch in batched(pieces, self.batch_size):
            yield from self._encode_batch(batch)

    def _encode_batch(self, batch: Sequence[Tensor]) -> list[SectionFeatures]:
        with self._autocast():
            features = self.encode_batch(self._cast(joined(batch)))
        return [type(features)(*(t[i : i + 1] for t in features)) for i in range(len(batch))]

    @torch.inference_mode()
    def decode(self, pairs: Sequence[tuple[Iterable[SectionFeatures], Iterable[SectionFeatures]]]) -> Tensor:
        """Foreground probability of both sections of encoded pairs, on the padded output grid.

        The pieces of a section are taken in their order, each once.

        Returns
        -------
        Tensor, shape (pairs, 2, h, w), float32
        """
        gathered = torch.zeros(len(pairs), 2, *self.output_shape, device=self.device)
        pieces = (
            Piece(pair, tile, view, first, second)
            for pair, encoded in enumerate(pairs)
            for (tile, view), (first, second) in zip(self.pieces, _side_by_side(*encoded), strict=True)
        )
        for batch in batched(pieces, self.batch_size):
            first, second = (
                joined_features([getattr(piece, which) for piece in batch]) for which in ("first", "second")
            )
            with self._autocast():
                output = self.decode_batch(first, second, residual=False)
            found = torch.stack([foreground(output.first), foreground(output.second)], dim=1)  # (N, 2, h, w)
            for piece, maps in zip(batch, found, strict=True):
                turned = maps.flip(piece.view) if piece.view else maps
                rows, columns = self.regions[piece.tile]
                gathered[piece.pair, :, rows, columns] += (
                    turned if self.window is None else turned * self.window
                )
        gathered /= len(self.views)
        return gathered if self.weight is None else gathered / self.weight

    def _fitting_batch_size(self, most: int = 16) -> int:
        """Pairs that fit the memory free on a CUDA device, from what one takes; 1 elsewhere."""
        if self.device.type != "cuda":
            return 1
        self.batch_size = 1
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        try:
            self._try_out()
        except torch.cuda.OutOfMemoryError:  # the run itself then takes smaller tiles
            return 1
        each = torch.cuda.max_memory_allocated(self.device) - before
        free, _ = torch.cuda.mem_get_info(self.device)
        return max(1, min(most, int(0.7 * free / max(each, 1))))

    def _try_out(self) -> None:
        """Send an empty pair through the network."""
        section = torch.zeros(1, 1, *self.tiling.padded, device=self.device)
        features = self.encode([section])[0]
        self.decode([(features, features)])

    def compile(self, announce: Callable[[str], None]) -> None:
        """Compile the network and try it; where that fails, announce it and continue without."""
        plain = self.encode_batch, self.decode_batch
        try:
            self.encode_batch = cast(Callable[..., SectionFeatures], torch.compile(plain[0], dynamic=False))
            self.decode_batch = cast(Callable[..., PairOutput], torch.compile(plain[1], dynamic=False))
            self._try_out()
        except Exception as error:  # noqa: BLE001 (whatever a compiler may raise)
            self.encode_batch, self.decode_batch = plain
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            announce(f"torch.compile failed; the run continues uncompiled, which is slower ({reason})")

    @torch.inference_mode()
    def finish(self, probability: Tensor) -> Callable[[], np.ndarray]:
        """Bring a map on the output grid back to the section's own pixels.

        Returns
        -------
        callable
            Gives the map, float32 (rows, columns). From a CUDA device it is copied to pinned memory while the next
            sections are computed, and the call waits for the copy.
        """
        full = probability[None, None]
        if self.network.grid > 1:
            full = F.interpolate(full, self.tiling.padded, mode="bilinear", align_corners=False)
        full = full[..., : self.working[0], : self.working[1]]
        if self.working != self.shape:
            full = F.interpolate(full, self.shape, mode="bilinear", antialias=True)
        full = full.clamp_(0, 1)  # rounding of weights can give 1.0000001
        if self.device.type != "cuda":
            return full[0, 0].cpu().numpy
        host = torch.empty(self.shape, pin_memory=True)
        host.copy_(full[0, 0], non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()

        def wait() -> np.ndarray:
            copied.synchronize()
            return host.numpy()

        return wait

    def _autocast(self) -> torch.autocast:
        enabled = self.bfloat16 and self.device.type != "cpu"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _cast(self, sections: Tensor) -> Tensor:
        return sections.bfloat16() if self.bfloat16 and self.device.type == "cpu" else sections


def _side_by_side(
    first: Iterable[SectionFeatures], second: Iterable[SectionFeatures]
) -> Iterator[tuple[SectionFeatures, SectionFeatures]]:
    """Pieces of two sections; those of a section paired with itself are made once."""
    return ((piece, piece) for piece in first) if first is second else zip(first, second, strict=True)


def for_inference(network: PairNetwork, bfloat16: bool, device: torch.device) -> PairNetwork:
    """Copy a network to where it computes.

    On a CPU the convolutions' weights are cast to bfloat16 here, once, instead of in every call; normalisations keep
    theirs in float32. Elsewhere autocast does it, whose kernels want one type.
    """
    ready = copy.deepcopy(network).to(device).eval().requires_grad_(False)
    if bfloat16 and device.type == "cpu":
        for module in ready.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.to(torch.bfloat16)
    return ready


def foreground(logits: Tensor) -> Tensor:
    """Foreground probability of logits (B, 2, h, w): (B, h, w), float32."""
    return torch.sigmoid(logits[:, 1].float() - logits[:, 0].float())


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """One batch of tensors of batches; of a single one without a copy."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def joined_features(features: Sequence[SectionFeatures]) -> SectionFeatures:
    """One batch of the features of several pieces."""
    return type(features[0])(*(joined(tensors) for tensors in zip(*features, strict=True)))


def batched(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Take items in lists of `size`; the last may be shorter."""
    while batch := list(islice(items, size)):
        yield batch
