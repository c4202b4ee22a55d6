"""A training between its steps: method, averaged weights, clock and random state, and the folder they are saved in."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mitoda.data.pairs import PseudoLabels
from mitoda.methods import Arithmetic, Method, build_method
from mitoda.models.pair_networks import PairNetwork
from mitoda.models.weights import WeightsInfo, load_state, load_weights, save_state, save_weights
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import SCHEDULES, TrainingSettings


class Run:
    """State of a training between steps, and its folder on disk.

    Parameters
    ----------
    settings : TrainingSettings
    arithmetic : Arithmetic
    info : WeightsInfo
        Saved with the weights; steps and seconds are filled in.
    folder : RunFolder
    from_weights : bool
        Whether the run begins (or began) from weights that know mitochondria; some methods then have other defaults.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        arithmetic: Arithmetic,
        info: WeightsInfo,
        folder: RunFolder,
        *,
        from_weights: bool = False,
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
        self.pseudo_labels: PseudoLabels | None = None
        self.method: Method = build_method(
            settings.method,
            settings.backbone,
            settings.assignments,
            arithmetic,
            from_weights=from_weights,
        )
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

    def set_learning_rates(self) -> float:
        """Schedule every optimiser; return the network's rate."""
        own = self.method.rate(self.progress)
        factor = SCHEDULES[self.settings.schedule](self.progress) if own is None else own
        for optimizer in self.method.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor
        return float(self.method.optimizers["network"].param_groups[0]["lr"])

    def update_average(self) -> None:
        """Move the averaged weights towards the current ones."""
        if self.method.restart_average:  # the method has begun a fresh network
            self.averaged = 0
            self.method.restart_average = False
        decay = (
            min(self.settings.ema_decay, (1 + self.averaged) / (10 + self.averaged)) if self.averaged else 0.0
        )
        self.averaged += 1
        averaged: list[torch.Tensor] = list(self.average.parameters())
        current = [parameter.detach() for parameter in self.method.network.parameters()]
        torch._foreach_lerp_(averaged, current, 1 - decay)

    def begin_from(self, weights: Path) -> None:
        """Take weights instead of freshly drawn ones, for the network and for its average."""
        begun, _ = load_weights(weights)
        for network in (self.method.network, self.average):
            network.load_state_dict(begun.state_dict())

    @property
    def dated_info(self) -> WeightsInfo:
        """What is saved with the weights, as of now."""
        return replace(
            self.info,
            steps=self.step,
            seconds=round(self.seconds, 1),
            smoothing=self.method.smoothing,
            smallest=self.method.smallest,
            snap=self.method.snap,
        )

    def save(self) -> None:
        """Write weights and state."""
        save_weights(self.folder.weights, self.average, self.dated_info)
        save_state(
            self.folder.state,
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
            },
        )

    def load(self) -> None:
        """Go on from the state on disk; lines of the log written after it are dropped."""
        state = load_state(self.folder.state)
        self.step, self.seconds = state["step"], state["seconds"]
        self.method.load_state_dict(state["method"])
        self.average.load_state_dict(state["average"])
        for name, optimizer in self.method.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        torch.set_rng_state(state["random"])
        self.averaged = state["averaged"]
        self.round = state["round"]
        self.pseudo_labels = _unpacked(state["pseudo_labels"])
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
