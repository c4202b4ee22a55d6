"""The seam: what every method is to the training loop.

A method owns its networks, losses and optimisers and does one whole step in `update`, in its own backward order. The
loop owns data, schedule, EMA weights, checkpoints and events. `network` is what the loop averages, saves and predicts
with; whatever else a method needs (discriminators, decoders) lives beside it and is saved only to resume.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from mitoda.data.pairs import LabelledBatch, PseudoLabels, UnlabelledBatch, Wanted
from mitoda.data.probability_volume import CoarseVolume
from mitoda.errors import InputError
from mitoda.models.backbones import Backbone
from mitoda.models.pair_networks import PairNetwork, PairOutput

KINDS = {int: "a whole number", float: "a number", bool: "yes or no"}
"""Types of settings in a person's words."""


@dataclass(frozen=True)
class MethodSettings:
    """What `--set name=value` can change in every method."""

    learning_rate: float = 0.0
    """Of the segmentation network; 0 takes the backbone's own (compact 1e-3, codetection 1e-4)."""
    gradient_norm: float = 1.0
    """Gradients of each network are scaled down to this norm (DA-ISC: 1)."""

    @classmethod
    def parse(cls, assignments: Mapping[str, str]) -> Self:
        """Read `name=value` texts over the defaults.

        Raises
        ------
        InputError
            If a name is unknown (the message lists the known ones) or a value does not read as its type.
        """
        known = {field.name: field for field in fields(cls)}
        changes: dict[str, Any] = {}
        for name, text in assignments.items():
            if name not in known:
                raise InputError(f"there is no setting '{name}' here; known are: {', '.join(known)}")
            kind = type(known[name].default)
            try:
                changes[name] = _parse(kind, text)
            except ValueError:
                raise InputError(f"--set {name}={text}: '{text}' is not {KINDS[kind]}") from None
        return cls(**changes)


def _parse(kind: type, text: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError(text)
        return text.lower() in ("true", "1", "yes")
    return kind(text)


class TargetBoundary(Protocol):
    """Where the images of the target say that a prediction of it should end; see `relabelling.ImageBoundary`."""

    def level(self, fallback: float) -> float:
        """Probability whose contour runs where the images are darkest; `fallback` where none does clearly."""
        ...

    def snapped(self, reference: float) -> CoarseVolume:
        """The prediction with each component's own such level moved to `reference`."""
        ...


@dataclass(frozen=True)
class Arithmetic:
    """Where and in which precision a method computes."""

    device: torch.device
    bfloat16: bool


class Method(nn.Module):
    """Base of all methods; see the module's text for the contract.

    Parameters
    ----------
    network : PairNetwork
        Averaged, saved and used for prediction by the loop.
    backbone : Backbone
        The network's recipe, for its learning rate.
    settings : MethodSettings
        Of the method's own kind.
    arithmetic : Arithmetic
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    title: ClassVar[str]
    """One line for tables and help."""
    needs_target: ClassVar[bool] = True
    """Whether `update` wants target patches."""
    can_go_without_source: ClassVar[bool] = False
    """Whether it can learn from the target alone, from weights that know mitochondria."""
    implied_by_start: ClassVar[Mapping[str, str]] = {}
    """Settings of a run that begins from weights that know mitochondria, where `--set` does not say otherwise."""
    labels_from: ClassVar[str] = "source"
    """Whose labels it learns from; "target" for the oracle alone."""

    def __init__(
        self, network: PairNetwork, backbone: Backbone, settings: MethodSettings, arithmetic: Arithmetic
    ) -> None:
        super().__init__()
        self.network = network
        self.restart_average = False
        """Set in the step that replaces the network by a fresh one: the loop's average then starts anew."""
        self.arithmetic = arithmetic
        self.optimizers: dict[str, Optimizer] = {
            "network": AdamW(
                network.parameters(),
                lr=settings.learning_rate or backbone.learning_rate,
                betas=(0.9, 0.99),
                weight_decay=backbone.weight_decay,
                fused=True,
            )
        }

    def wants(self, progress: float) -> Wanted:
        """Say which domains the coming step learns from."""
        return Wanted(source=True, target=self.needs_target)

    def step(
        self, source: LabelledBatch | None, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """Take one step on what there is: `update`, or `update_alone` without a source."""
        if source is None:
            return self.update_alone(target, progress)
        return self.update(source, target, progress)

    def update(
        self, source: LabelledBatch, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """Take one step.

        Parameters
        ----------
        source, target : batches
            `target` is None where it is not wanted.
        progress : float
            Share of the run that is done, 0 to 1.

        Returns
        -------
        dict of str to Tensor
            Detached scalar losses, weighted as they enter the sum, for the log.
        """
        raise NotImplementedError

    def without_source(self) -> None:
        """Get ready to learn from the target alone, from weights that know mitochondria; `update_alone` then steps."""
        raise ValueError(f"{self.title} cannot learn without a source")

    def update_alone(self, target: UnlabelledBatch | None, progress: float) -> dict[str, Tensor]:
        """Take one step without a source; see `update`."""
        raise ValueError(f"{self.title} cannot learn without a source")

    def rate(self, progress: float) -> float | None:
        """Factor on all learning rates, where the method has a schedule of its own; None takes the loop's."""
        return None

    def round_of(self, progress: float) -> int:
        """Number of the round that a share of the run belongs to; 0 before the method labels the target itself.

        When it grows, the loop predicts the adaptation volume with the averaged network, smoothed along the sections by
        `smoothing` nanometres, hands it to `relabel`, and goes on from the averaged weights.
        """
        return 0

    smoothing: float = 0.0
    """Nanometres; of the loop's prediction for `relabel`, and of those who segment with the weights."""

    smallest: float = 0.0
    """Cubic nanometres below which a component is dropped by those who segment with the weights; 0 drops none."""

    snap: bool = False
    """Whether those who segment with the weights move each boundary to its own dark ring; see `rings`."""

    def relabel(self, coarse: CoarseVolume, boundary: TargetBoundary) -> PseudoLabels:
        """Turn the prediction of the adaptation volume into pseudo labels for the coming round.

        Parameters
        ----------
        coarse : CoarseVolume
        boundary : TargetBoundary
            Of that prediction.
        """
        raise NotImplementedError

    def predict(self, images: Tensor, residual: bool = True) -> PairOutput:
        """Run the network on pairs, in the method's precision."""
        with self.autocast():
            return self.network(images, residual=residual)

    def autocast(self) -> torch.autocast:
        """Return the context that casts convolutions to bfloat16 where asked for."""
        return torch.autocast(self.arithmetic.device.type, torch.bfloat16, enabled=self.arithmetic.bfloat16)


def target_of(target: UnlabelledBatch | None) -> UnlabelledBatch:
    """Insist on target patches in methods that need them."""
    if target is None:
        raise ValueError("this method needs target patches")
    return target


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of scalar losses."""
    return torch.stack(list(losses.values())).sum()


def detached(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses without their graph."""
    return {name: loss.detach() for name, loss in losses.items()}
