"""State of a training between its steps: method, averaged weights, clock, random state, and the checkpoint of them."""

import copy
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, TypeAdapter

from mitoda.data.painted import PaintedLabels
from mitoda.data.pairs import PseudoLabels
from mitoda.errors import FileError
from mitoda.methods import Arithmetic, Method, SelfLabelling, build_method
from mitoda.models.model import Model
from mitoda.models.pair_networks import PairNetwork
from mitoda.models.weights import WeightsInfo, first_line, load_state, load_weights, save_state, save_weights
from mitoda.training.painting import HeldBackScore
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import SCHEDULES, TrainingSettings


@dataclass(frozen=True)
class _Progress:
    """Numbers of a state, as they are read back."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"allow_inf_nan": False}

    step: Annotated[int, Field(ge=0, strict=True)]
    seconds: Annotated[float, Field(ge=0, strict=True)]
    averaged: Annotated[int, Field(ge=0, strict=True)]
    round: Annotated[int, Field(ge=0, strict=True)]


class Run:
    """State of a training between its steps.

    Parameters
    ----------
    settings : TrainingSettings
    arithmetic : Arithmetic
    info : WeightsInfo
        Saved with the weights, with steps and seconds filled in.
    folder : RunFolder
        Must exist when the run is saved.
    start : Path, optional
        Weights to start from; also given to resume such a run, whose method then has the same settings.
    source_free : bool
        Whether there is no source.
    painted : PaintedLabels, optional
        Painted places of the target.
    thickness_nm : float
        Of the target's sections.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        arithmetic: Arithmetic,
        info: WeightsInfo,
        folder: RunFolder,
        *,
        start: Path | None = None,
        source_free: bool = False,
        painted: PaintedLabels | None = None,
        thickness_nm: float = 0.0,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.info = info
        self.folder = folder
        self.step = 0
        self.seconds = 0.0
        self.averaged = 0
        """Steps that the averaged weights have seen."""
        self.round = 0
        self.start = start
        self.painted = painted
        self.pseudo_labels: PseudoLabels | None = None
        self.held_back_score: HeldBackScore | None = None
        """With painted labels, once F1 on their held-back part is measured."""
        self.method: Method = build_method(
            settings.method,
            settings.backbone,
            settings.assignments,
            arithmetic,
            from_weights=start is not None,
            source_free=source_free,
            painted=painted is not None,
            thickness_nm=thickness_nm,
        )
        if start is not None:
            self.method.network.load_state_dict(load_weights(start)[0].state_dict())
        self.average: PairNetwork = copy.deepcopy(self.method.network).requires_grad_(False).eval()
        for optimizer in self.method.optimizers.values():
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return self.progress_at(self.step)

    def progress_at(self, step: int) -> float:
        """Share of the run that is done at a step; for a run of fixed minutes, the share by now."""
        if self.settings.steps is not None:
            return min(1.0, step / self.settings.steps)
        return min(1.0, self.seconds / (60.0 * (self.settings.minutes or 1.0)))

    @property
    def holds_back(self) -> bool:
        """Whether a part of the painted labels is still held back."""
        return self.painted is not None and self.held_back_score is None

    @property
    def labeller(self) -> SelfLabelling | None:
        """The method, if it labels the target itself."""
        return self.method if isinstance(self.method, SelfLabelling) else None

    @property
    def model(self) -> Model:
        """The averaged network, to predict with."""
        arithmetic = self.method.arithmetic
        return Model(self.average, self.info, arithmetic.device, arithmetic.bfloat16)

    def set_learning_rates(self) -> float:
        """Set all learning rates for the next step and return the network's. No other code sets them."""
        own = self.method.schedule(self.progress)
        factor = SCHEDULES[self.settings.schedule](self.progress) if own is None else own
        for optimizer in self.method.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        return float(self.method.optimizers["network"].param_groups[0]["lr"])

    def update_average(self) -> None:
        """Move the averaged weights towards the current ones."""
        if self.method.network_is_fresh:
            self.averaged = 0
            self.method.network_is_fresh = False
        decay = (
            min(self.settings.ema_decay, (1 + self.averaged) / (10 + self.averaged)) if self.averaged else 0.0
        )
        self.averaged += 1
        averaged: list[torch.Tensor] = list(self.average.parameters())
        current = [parameter.detach() for parameter in self.method.network.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)

    @property
    def described(self) -> WeightsInfo:
        """Metadata of the averaged weights, with what is known of them now."""
        info = replace(self.info, steps=self.step, seconds=round(self.seconds, 1))
        if self.labeller is not None:
            info = replace(info, **self.labeller.mask_settings)
        if self.held_back_score is not None:
            info = self.held_back_score.calibrated(info)
        return info

    def save_average(self, path: Path) -> None:
        """Write the averaged weights."""
        save_weights(path, self.average, self.described)

    def go_on_from(self, network: PairNetwork) -> None:
        """Replace the weights and their average by those of a network."""
        self.average.load_state_dict(network.state_dict())
        self.method.network.load_state_dict(network.state_dict())

    def save(self, folder: RunFolder | None = None) -> None:
        """Write weights and state, into another folder than the run's if one is given."""
        folder = folder or self.folder
        self.save_average(folder.weights)
        save_state(
            folder.state,
            {
                "step": self.step,
                "seconds": self.seconds,
                "method": self.method.state_dict(),
                "average": self.average.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self.method.optimizers.items()},
                "random": torch.get_rng_state(),
                "averaged": self.averaged,
                "round": self.round,
                "pseudo_labels": _packed(self.pseudo_labels),
                "held_back_score": None if self.held_back_score is None else asdict(self.held_back_score),
            },
        )

    def load(self) -> None:
        """Continue from the state on disk; lines of the log written after it are dropped.

        Raises
        ------
        FileError
            If there is no state, or it is not one of this run's method and backbone.
        """
        state = load_state(self.folder.state)
        try:
            numbers = TypeAdapter(_Progress).validate_python(
                {one.name: state[one.name] for one in fields(_Progress)}
            )
            self.step, self.seconds = numbers.step, numbers.seconds
            self.method.load_state_dict(state["method"])
            self.average.load_state_dict(state["average"])
            for name, optimizer in self.method.optimizers.items():
                optimizer.load_state_dict(state["optimizers"][name])
            torch.set_rng_state(state["random"])
            self.averaged, self.round = numbers.averaged, numbers.round
            self.pseudo_labels = _unpacked(state["pseudo_labels"])
            if self.labeller is not None:
                # A run that is made longer is in an earlier round again, and labels the target anew from there.
                self.round = min(self.round, self.labeller.round_of(self.progress))
            score = state["held_back_score"]
            self.held_back_score = None if score is None else HeldBackScore(**score)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
            raise FileError(
                f"{self.folder.state} is not a state of this run ({first_line(error)}); it is damaged or was "
                "written by another version of mitoda; start the run again with --overwrite"
            ) from error
        self.folder.truncate_log(self.step)


def _packed(pseudo: PseudoLabels | None) -> dict[str, Any] | None:
    """Pseudo labels as tensors and numbers, for the state."""
    if pseudo is None:
        return None
    return {**vars(pseudo), "probabilities": torch.from_numpy(pseudo.probabilities)}


def _unpacked(state: dict[str, Any] | None) -> PseudoLabels | None:
    if state is None:
        return None
    return PseudoLabels(**{**state, "probabilities": state["probabilities"].numpy()})
