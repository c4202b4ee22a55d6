"""The backbones: recipes of the networks that every method runs on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mitoda.errors import InputError
from mitoda.models.pair_networks import PairNetwork, Widths
from mitoda.models.section_networks import Rsunet, Unet


@dataclass(frozen=True)
class Backbone:
    """A network's recipe, and how it is trained."""

    build: Callable[[], PairNetwork]
    normalisation: str
    """Of the input's grey values: "standard" (mean 0, variance 1) or "minmax" (0 to 1)."""
    learning_rate: float
    whole_section_pixels: int
    """Sections of up to this many pixels are predicted whole by default (about 2 GB at most)."""
    weight_decay: float = 0.0
    grid: int = 1
    """Side of an output pixel in input pixels."""
    has_residual: bool = True
    """Whether the network predicts the residual of a pair."""


COMPACT = Widths(encoder=(24, 48), body=(96, 192, 192), decoder=(96, 48, 24, 12))
CODETECTION = Widths(encoder=(64, 128), body=(256, 512, 512), decoder=(256, 128, 64, 32))

BACKBONES: dict[str, Backbone] = {
    # 2,524,146 parameters.
    "compact": Backbone(
        partial(PairNetwork, COMPACT, grid=4, affine=True, learnt_upsampling=False, prior=0.1),
        "standard",
        learning_rate=1e-3,
        whole_section_pixels=4096 * 4096,
        weight_decay=0.01,
        grid=4,
    ),
    # DA-ISC's CoDetectionCNN: 20,755,814 parameters, 236.17 GMAC for a 512×512 pair. Adam 1e-4 without decay.
    "codetection": Backbone(
        partial(PairNetwork, CODETECTION, grid=1, affine=False, learnt_upsampling=True),
        "minmax",
        learning_rate=1e-4,
        whole_section_pixels=1280 * 1280,
    ),
    # UALR's RSUNet: 567,314 parameters, 10.32 GMAC for a 512×512 section. Adam 1e-3 on grey values divided by 255.
    "rsunet": Backbone(Rsunet, "minmax", 1e-3, whole_section_pixels=2048 * 2048, has_residual=False),
    # DAMT-Net's U-Net: 28,941,698 parameters, encoder and segmentation decoder. Adam 5e-5.
    "unet": Backbone(Unet, "minmax", 5e-5, whole_section_pixels=1280 * 1280, has_residual=False),
}
"""By the names of `--backbone`."""


def backbone_named(name: str) -> Backbone:
    """Look a backbone up.

    Raises
    ------
    InputError
        If there is none of that name; the message lists the known ones.
    """
    if name not in BACKBONES:
        raise InputError(f"there is no backbone '{name}'; choose one of: {', '.join(BACKBONES)}")
    return BACKBONES[name]


def build_network(name: str) -> PairNetwork:
    """Build the network of a backbone, in channels-last memory format, freshly initialised."""
    network = backbone_named(name).build()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def reinitialise(network: nn.Module) -> None:
    """Draw all weights anew, in place; a module's own `reset_parameters` runs after those of its children."""
    with torch.no_grad():
        for module in reversed(list(network.modules())):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
