"""Stand-ins that force a property: networks small or local enough to reason about, volumes that count or refuse."""

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mitoda.models.backbones import BACKBONES, Backbone, build_network
from mitoda.models.model import Model
from mitoda.models.pair_networks import PairNetwork, PairOutput, SectionFeatures, Widths
from mitoda.models.weights import WeightsInfo, save_weights
from mitoda.volumes import Volume
from mitoda.volumes.volume import EVERYTHING

TINY_WIDTHS = Widths((4, 6), (8, 8, 8), (8, 6, 4, 4))


def tiny_network(grid: int = 1, seed: int = 0) -> PairNetwork:
    """A pair network of a few channels with random weights."""
    torch.manual_seed(seed)
    return PairNetwork(TINY_WIDTHS, grid, affine=True, learnt_upsampling=grid == 1).eval()


def recipe(grid: int = 1, normalisation: str = "standard", whole: int = 1 << 30) -> Backbone:
    """The backbone that belongs to a fake network."""
    return replace(
        BACKBONES["compact"],
        build=lambda: tiny_network(grid),
        grid=grid,
        normalisation=normalisation,
        whole_section_pixels=whole,
    )


class LocalNetwork(nn.Module):
    """Each pixel of both masks depends on that pixel of both sections alone, so tiles cannot matter.

    Logit of the first section: 2a + b; of the second: 2b − a, for grey values a and b.
    """

    grid = 1
    multiple = 16
    joined = True

    def encode(self, section: Tensor) -> SectionFeatures:
        """The grey values themselves."""
        return SectionFeatures(section, section)

    def decode(self, first: SectionFeatures, second: SectionFeatures, residual: bool = True) -> PairOutput:
        """The two formulas."""
        a, b = first.fine, second.fine
        logits = [torch.cat([torch.zeros_like(a), x], dim=1) for x in (2 * a + b, 2 * b - a)]
        return PairOutput(logits[0], logits[1], None, a, (a, b), (a, b))


@dataclass(frozen=True)
class FakeModel(Model):
    """A model whose backbone is that of a fake network."""

    fake_backbone: Backbone = field(default_factory=recipe)

    @property
    def backbone(self) -> Backbone:
        """Not that of `info`."""
        return self.fake_backbone


def model_of(
    network: nn.Module, pixel: tuple[float, float], spacing: float, backbone: Backbone | None = None
) -> Model:
    """A fake network as a model, for these pixels and pairs."""
    return FakeModel(network, WeightsInfo("fake", pixel, spacing), fake_backbone=backbone or recipe())


class CountingVolume:
    """Passes reads on, and remembers which sections were read and on which threads."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.name, self.shape, self.dtype = volume.name, volume.shape, volume.dtype
        self.voxel_size = volume.voxel_size
        self.sections: list[int] = []
        self._lock = threading.Lock()

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """See `Volume.read`."""
        with self._lock:
            self.sections.append(section)
        return self.volume.read(section, rows, columns)


class ComputedVolume:
    """A volume of any size whose voxels are computed from their place; counts what is read, and how much at once."""

    def __init__(self, shape: tuple[int, int, int], voxel_size: tuple[float, float, float] | None) -> None:
        self.name, self.shape, self.dtype = "computed", shape, np.dtype(np.uint8)
        self.voxel_size = voxel_size
        self.total = self.most = 0
        """Voxels read, and of one reading."""
        self.sections: set[int] = set()

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Waves with noise."""
        y, x = (
            np.arange(length, dtype=np.uint32)[side]
            for length, side in zip(self.shape[1:], (rows, columns), strict=True)
        )
        self.sections.add(section)
        self.total += len(y) * len(x)
        self.most = max(self.most, len(y) * len(x))
        noise = (y[:, None] * np.uint32(2654435761) ^ x[None] * np.uint32(40503 + section)) >> np.uint32(27)
        waves = 60 * (np.sin(y / 9.0)[:, None] + np.sin((x + section) / 11.0)[None]) + 120
        return (waves + noise).clip(0, 255).astype(np.uint8)


class UnreadableVolume:
    """Has a shape, and fails the test when anything of it is read."""

    def __init__(self, volume: Volume) -> None:
        self.name, self.shape, self.dtype = "forbidden", volume.shape, volume.dtype
        self.voxel_size = volume.voxel_size

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """Never to be called."""
        raise AssertionError(f"section {section} of a volume nobody may read was read")


class BrokenVolume(CountingVolume):
    """Fails at one section, as a damaged file does."""

    def __init__(self, volume: Volume, broken: int) -> None:
        super().__init__(volume)
        self.broken = broken

    def read(self, section: int, rows: slice = EVERYTHING, columns: slice = EVERYTHING) -> np.ndarray:
        """See `Volume.read`."""
        if section == self.broken:
            raise OSError(f"section {section} cannot be read")
        return super().read(section, rows, columns)


def compact_weights(path: Path, seed: int = 0, **changes: object) -> WeightsInfo:
    """Write random weights of the compact backbone, for 10 nm pixels and pairs 20 nm apart; return what they say.

    Without the prior of a new network, which predicts no mitochondria at all.
    """
    torch.manual_seed(seed)
    values: dict[str, object] = {"backbone": "compact", "pixel": (10.0, 10.0), "spacing": 20.0, **changes}
    info = WeightsInfo(**values)  # type: ignore[arg-type]
    save_weights(path, without_prior(build_network("compact")), info)
    return info


def without_prior(network: PairNetwork) -> PairNetwork:
    """Return a network whose heads prefer no class."""
    for head in network.heads:
        torch.nn.init.zeros_(head[3].bias)
    return network
