"""The published way of doing things, written plainly from its description: what the benchmarks compare with.

DA-ISC's network in float32 and contiguous memory with `nn.InstanceNorm2d`, one pair at a time; its sections mirrored to
1120×1120; scores by scikit-learn, section by section.
"""

import copy

import numpy as np
import torch
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, matthews_corrcoef
from torch import Tensor, nn

from mitoda.methods.losses import domain_loss, probabilities, xor_pseudo_labels
from mitoda.models.normalisation import InstanceNorm
from mitoda.models.pair_networks import PairNetwork, SectionFeatures


class PublishedNetwork(PairNetwork):
    """The network of given weights as it was published: contiguous, with PyTorch's instance normalisation."""

    def __init__(self, network: PairNetwork) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(copy.deepcopy(network).__dict__)
        for module in list(self.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, InstanceNorm):
                    plain = nn.InstanceNorm2d(child.num_channels, affine=child.affine)
                    plain.load_state_dict(child.state_dict())
                    setattr(module, name, plain)
        self.to(memory_format=torch.contiguous_format)

    def encode(self, section: Tensor) -> SectionFeatures:
        """As `PairNetwork.encode`, in contiguous memory."""
        fine = self.encoder_fine(section)
        return SectionFeatures(fine, self.encoder_half(fine))


def mirrored(section: np.ndarray, side: int = 1120) -> Tensor:
    """A section scaled to 0…1 by its extremes and mirrored on all sides to side × side: (side, side)."""
    values = section.astype(np.float32)
    values = (values - values.min()) / (values.max() - values.min())
    margins = [((side - size) // 2, side - size - (side - size) // 2) for size in values.shape]
    return torch.from_numpy(np.pad(values, margins, mode="reflect"))


@torch.no_grad()
def predict_pair(network: PublishedNetwork, first: np.ndarray, second: np.ndarray) -> list[np.ndarray]:
    """Foreground probability of both sections of a pair; the residual decoder is not run."""
    device = next(network.parameters()).device
    images = torch.stack([mirrored(first), mirrored(second)])[None].to(device)
    output = network(images, residual=False)
    rows, columns = first.shape
    above, left = ((1120 - size) // 2 for size in first.shape)
    return [
        logits.softmax(1)[0, 1, above : above + rows, left : left + columns].cpu().numpy()
        for logits in (output.first, output.second)
    ]


def score_section(probability: np.ndarray, label: np.ndarray) -> list[float]:
    """AP, F1, MCC and IoU of a section by scikit-learn."""
    truth, scores = label.ravel() != 0, probability.ravel()
    predicted = scores >= 0.5
    return [
        average_precision_score(truth, scores),
        f1_score(truth, predicted),
        matthews_corrcoef(truth, predicted),
        jaccard_score(truth, predicted),
    ]


class PublishedStep:
    """A training step of DA-ISC as published: one pair of each domain, the order and losses of the paper."""

    def __init__(self, network: PublishedNetwork, segmentation: nn.Module, residual: nn.Module) -> None:
        self.network = network.train()
        self.judges = {"segmentation": segmentation, "residual": residual}
        self.optimizers = [
            torch.optim.Adam(module.parameters(), lr=1e-4, betas=(0.9, 0.99))
            for module in (network, segmentation, residual)
        ]

    def __call__(self, source: Tensor, labels: Tensor, target: Tensor) -> None:
        """Step on images (1, 2, H, W) of both domains and labels (1, 2, H, W) of the source."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        self._freeze(True)
        known = self.network(source)
        cross_entropy = nn.functional.cross_entropy
        changed = labels[:, 0] ^ labels[:, 1]
        supervised = cross_entropy(known.first, labels[:, 0]) + cross_entropy(known.second, labels[:, 1])
        (supervised + cross_entropy(known.residual, changed)).backward()
        found = self.network(target)
        pseudo = xor_pseudo_labels(found)
        consistent = cross_entropy(found.first, pseudo[:, 0]) + cross_entropy(found.second, pseudo[:, 1])
        fooled = [self._judge("segmentation", logits, 0.0) for logits in (found.first, found.second)]
        adversarial = 0.001 * (sum(fooled) / 2 + self._judge("residual", found.residual, 0.0))
        (0.01 * consistent + adversarial).backward()
        self._freeze(False)
        for output, domain in ((known, 0.0), (found, 1.0)):
            for logits in (output.first.detach(), output.second.detach()):
                (self._judge("segmentation", logits, domain) / 4).backward()
            (self._judge("residual", output.residual.detach(), domain) / 2).backward()
        for module in (self.network, *self.judges.values()):
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()

    def _judge(self, name: str, logits: Tensor, domain: float) -> Tensor:
        return domain_loss(self.judges[name](probabilities(logits)), domain)

    def _freeze(self, frozen: bool) -> None:
        for judge in self.judges.values():
            judge.requires_grad_(not frozen)
