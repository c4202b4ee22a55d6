"""Loss terms that several methods share. Logits are (B, 2, h, w); labels are class indices (B, h, w)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mitoda.data.pairs import IGNORE
from mitoda.models.pair_networks import PairOutput

SOURCE, TARGET = 0.0, 1.0
"""What a discriminator answers for each domain in AdaptSegNet, DA-VSN and DA-ISC (DAMT-Net has it the other way)."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over two classes, averaged over the pixels not labelled `IGNORE`; 0 where all are ignored."""
    summed = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    return summed / (labels != IGNORE).sum().clamp_min(1)


def pair_cross_entropy(output: PairOutput, labels: Tensor) -> dict[str, Tensor]:
    """L_s of DA-ISC (eq. 1): cross-entropy of both masks and of the residual, unweighted.

    The residual's label is the XOR of the two masks on the output grid, `IGNORE` where either of them is.
    """
    losses = {
        "first": cross_entropy(output.first, labels[:, 0]),
        "second": cross_entropy(output.second, labels[:, 1]),
    }
    if output.residual is not None:
        losses["residual"] = cross_entropy(output.residual, residual_labels(labels))
    return losses


def residual_labels(labels: Tensor) -> Tensor:
    """XOR of the labels (B, 2, h, w) of both sections: (B, h, w); `IGNORE` where either section's label is."""
    unknown = (labels == IGNORE).any(1)
    return (labels[:, 0] ^ labels[:, 1]).masked_fill(unknown, IGNORE)


def soft_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over both classes of 1 − (2 Σ p t + 1) / (Σ p² + Σ t² + 1), sums over the whole batch.

    Y-Net's code (JorisRoels/neuralnets); pixels labelled `IGNORE` count in neither sum.
    """
    known = (labels != IGNORE)[:, None]
    truth = torch.stack([labels == 0, labels == 1], dim=1).float()
    guess = probabilities(logits) * known
    overlap = 2 * (guess * truth).sum((0, 2, 3)) + 1
    return (1 - overlap / ((guess**2).sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)).mean()


def entropy(probability: Tensor) -> Tensor:
    """Entropy over the classes in nats: (B, 2, h, w) to (B, h, w), 0 to ln 2."""
    return -(probability * probability.clamp_min(1e-12).log()).sum(1)


def domain_loss(decision: Tensor, domain: float) -> Tensor:
    """Binary cross-entropy of a discriminator's logits against one domain."""
    return F.binary_cross_entropy_with_logits(decision.float(), torch.full_like(decision, domain).float())


def xor_pseudo_labels(output: PairOutput) -> Tensor:
    """Pseudo labels of DA-ISC (eq. 4): each section's from the other's mask and the residual, all detached.

    Where the residual says "unchanged" the label is the other section's; where it says "changed", the opposite.

        other mask  0 0 1 1
        residual    0 1 0 1
        label       0 1 1 0

    Returns
    -------
    Tensor, shape (B, 2, h, w), int64
        For the first section, then for the second.
    """
    if output.residual is None:
        raise ValueError("the residual decoder did not run; predict the pair with residual=True")
    changed = output.residual.detach().argmax(1)
    first = output.first.detach().argmax(1)
    second = output.second.detach().argmax(1)
    return torch.stack([second ^ changed, first ^ changed], dim=1)


def rampup(progress: float, full_at: float = 0.25, height: float = 0.1) -> float:
    """Gaussian ramp-up of a consistency weight: height · exp(−5 (1 − t)²), t = progress / full_at, at most 1.

    DA-ISC reaches 0.1 after 50,000 of its 200,000 steps, a quarter of the run.
    """
    done = min(progress / full_at, 1.0) if full_at > 0 else 1.0
    return height * math.exp(-5.0 * (1.0 - done) ** 2)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the two classes, in float32, shape unchanged."""
    return logits.float().softmax(1)
