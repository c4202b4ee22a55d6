"""Small batches and small networks for the tests of methods."""

import torch

from mitoda.data.pairs import LabelledBatch, UnlabelledBatch
from mitoda.methods import Arithmetic, Method, method_named
from mitoda.models.backbones import Backbone
from mitoda.models.pair_networks import PairNetwork, Widths

CPU = Arithmetic(torch.device("cpu"), bfloat16=False)

TINY_WIDTHS = Widths(encoder=(8, 12), body=(16, 16, 32), decoder=(16, 12, 8, 8))
TINY = Backbone(
    lambda: PairNetwork(TINY_WIDTHS, 2, affine=True, learnt_upsampling=False),
    grid=2,
    normalisation="standard",
    learning_rate=5e-3,
    weight_decay=0.0,
    whole_section_pixels=512 * 512,
)
"""The topology of `compact` with a hundredth of its weights, on pixels twice as coarse."""


def batches(seed: int = 0, side: int = 64) -> tuple[LabelledBatch, UnlabelledBatch]:
    """Random patches of one pair each, with a blob as label."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(1, 2, side, side, generator=generator)
    coverage = torch.zeros_like(images)
    coverage[..., side // 4 : 3 * side // 4, side // 8 : 5 * side // 8] = 1.0
    coverage[:, 1, side // 4 : side // 2, side // 8 : 5 * side // 8] = 0.0
    target = torch.randn(1, 2, side, side, generator=generator)
    return LabelledBatch(images, coverage), UnlabelledBatch(target)


def build(name: str, seed: int = 0, arithmetic: Arithmetic = CPU, **settings: str) -> Method:
    """A method on the tiny network, built from a seed."""
    torch.manual_seed(seed)
    cls, implied = method_named(name)
    parsed = cls.Settings.parse({**implied, **settings})
    return cls(TINY.build(), TINY, parsed, arithmetic).train()


def reached(module: torch.nn.Module) -> set[str]:
    """Parameters that have a gradient other than zero."""
    return {
        name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)
    }
