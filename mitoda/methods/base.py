"""The seam between methods and the training loop.

A method owns its networks, losses and optimisers, and takes one whole step in `update`, in its own order of backward
passes. The loop owns batches, learning rates, averaged weights, checkpoints and events. Beside the step it knows
`SelfLabelling`, for methods that label the target volume themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, TypedDict, TypeVar, runtime_checkable

import torch
from pydantic import Field, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from mitoda.data.pairs import LabelledBatch, PseudoLabels, UnlabelledBatch, Wanted
from mitoda.data.probability_volume import CoarseVolume
from mitoda.errors import InputError
from mitoda.models.backbones import Backbone
from mitoda.models.pair_networks import PairNetwork, PairOutput
from mitoda.volumes import Volume

T = TypeVar("T")
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class MethodSettings:
    """Settings of every method, which `--set name=value` changes."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    learning_rate: NotNegative = 0.0
    """Of the segmentation network; 0 takes the backbone's."""
    gradient_norm: Positive = 1.0
    """Gradients of each network are scaled down to this norm (DA-ISC: 1)."""

    @classmethod
    def parse(cls, assignments: Mapping[str, str]) -> Self:
        """Read texts over the defaults.

        Raises
        ------
        InputError
            If a name is unknown, or a value has the wrong type or is out of its range.
        """
        known = [field.name for field in fields(cls)]
        for name in assignments:
            if name not in known:
                raise InputError(
                    f"there is no setting '{name}' of this method; known are: {', '.join(known)}"
                )
        try:
            return TypeAdapter(cls).validate_python(dict(assignments))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0])
            raise InputError(f"setting {name}={assignments[name]}: {first['msg']}") from error

    def resolve(
        self, *, from_weights: bool, source_free: bool, painted: bool = False, thickness_nm: float = 0.0
    ) -> Self:
        """Return the settings with those defaults filled in that depend on how the run starts.

        Parameters
        ----------
        from_weights : bool
            Whether the run starts from weights that segment mitochondria already.
        source_free : bool
            Whether there is no source.
        painted : bool
            Whether places of the target are painted; they are a source, or part of it.
        thickness_nm : float
            Of the target's sections.

        Raises
        ------
        InputError
            If the method cannot train without a source.
        """
        if source_free:
            raise InputError("this method learns from the source; without a source use the method 'mitoda'")
        return self


@dataclass(frozen=True)
class Arithmetic:
    """Device and precision of a training."""

    device: torch.device
    bfloat16: bool


class Method(nn.Module):
    """Base of all methods.

    Parameters
    ----------
    network : PairNetwork
        The loop averages it, saves the average and predicts with it.
    backbone : Backbone
        Recipe of the network.
    settings : MethodSettings
        Instance of `Settings`, resolved.
    arithmetic : Arithmetic
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    title: ClassVar[str]
    """One line for tables and help."""
    needs_target: ClassVar[bool] = True
    """Whether any step learns from target patches."""
    labels_from: ClassVar[Literal["source", "target"]] = "source"
    """Domain whose labels it learns from; "target" for the oracle alone."""
    settings: MethodSettings

    def __init__(
        self, network: PairNetwork, backbone: Backbone, settings: MethodSettings, arithmetic: Arithmetic
    ) -> None:
        super().__init__()
        self.network = network
        self.backbone = backbone
        self.settings = settings
        self.arithmetic = arithmetic
        self.learning_rate = settings.learning_rate or backbone.learning_rate
        self.network_is_fresh = False
        """Set by a step that replaced the network by a fresh one; the loop then restarts its average and unsets it."""
        self.optimizers: dict[str, Optimizer] = {
            "network": AdamW(
                network.parameters(),
                lr=self.learning_rate,
                betas=(0.9, 0.99),
                weight_decay=backbone.weight_decay,
                fused=True,
            )
        }
        self.build()

    def build(self) -> None:
        """Add what the method has beside the network: modules, their optimisers, buffers."""

    def wants(self, progress: float) -> Wanted:
        """Return the domains that the step at this share of the run learns from."""
        return Wanted(source=True, target=self.needs_target)

    def schedule(self, progress: float) -> float | None:
        """Return the factor on all initial learning rates; None leaves it to the run's schedule."""
        return None

    def update(
        self, source: LabelledBatch | None, target: UnlabelledBatch | None, progress: float
    ) -> dict[str, Tensor]:
        """Take one step.

        Parameters
        ----------
        source, target : batches
            None for a domain that `wants` leaves out.
        progress : float
            Share of the run that is done, 0 to 1.

        Returns
        -------
        dict of str to Tensor
            Scalar losses for the log, detached, weighted as in their sum.
        """
        raise NotImplementedError

    def predict(self, images: Tensor, residual: bool = True) -> PairOutput:
        """Run the network on pairs, in the method's precision."""
        with self.autocast():
            output: PairOutput = self.network(images, residual=residual)
            return output

    def learn(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Backward pass and step of the network alone; return the losses, detached."""
        self.optimizers["network"].zero_grad(set_to_none=True)
        torch.autograd.backward(total(losses))
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_norm)
        self.optimizers["network"].step()
        return detached(losses)

    def autocast(self) -> torch.autocast:
        """Return the context that casts convolutions to bfloat16, if the run does."""
        return torch.autocast(self.arithmetic.device.type, torch.bfloat16, enabled=self.arithmetic.bfloat16)


class MaskSettings(TypedDict):
    """Defaults of segmentation that weights carry; fields of `WeightsInfo`."""

    smoothing: float
    """Standard deviation along the sections, nanometres."""
    smallest: float
    """Volume of the smallest component, nm³."""
    snap: bool
    """Whether boundaries are moved to the membranes."""


@dataclass(frozen=True)
class Teacher:
    """The averaged network at the beginning of a round, and how it predicts the target."""

    network: PairNetwork
    predict: Callable[[], CoarseVolume]
    """Predict the target volume, or the slab of the round, smoothed along the sections."""


@runtime_checkable
class SelfLabelling(Protocol):
    """A method that labels the target volume itself, in rounds.

    When `round_of` grows, the loop has the target labelled by `relabel`, and continues from the averaged weights.
    """

    mask_settings: MaskSettings

    def round_of(self, progress: float) -> int:
        """Return the round at a share of the run; 0 before the first labels."""
        ...

    def relabel(self, teacher: Teacher, images: Volume) -> PseudoLabels:
        """Label the target from what the teacher predicts, and from its images."""
        ...


def required(batch: T | None) -> T:
    """Return a batch that must be there."""
    if batch is None:
        raise ValueError("this step needs patches of a domain that was not given; see Method.wants")
    return batch


def total(losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of scalar losses."""
    return torch.stack(list(losses.values())).sum()


def detached(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses without their graph."""
    return {name: loss.detach() for name, loss in losses.items()}
