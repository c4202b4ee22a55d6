"""What can be said of a result without a label: how much it finds, whether it agrees with itself, what changed."""

from dataclasses import dataclass
from pathlib import Path

import torch

from mitoda.inference.self_consistency import (
    EMPTY,
    FLOOD,
    foreground_is_plausible,
    foreground_share,
    selection_scores,
)
from mitoda.models.pair_networks import backbone_named
from mitoda.models.weights import load_weights
from mitoda.training.domains import Prepared

SAMPLES = 12
"""Places of the target that are looked at."""


@dataclass(frozen=True)
class Look:
    """A network looked at on a few places of the target."""

    foreground: float
    """Share of pixels taken for mitochondrion."""
    agreement: float | None
    """Dice of what it says of a section as second of one pair and as first of the next; None where there is no such."""


@dataclass(frozen=True)
class Verdict:
    """A run's result, without labels."""

    now: Look
    before: Look | None
    """Of the weights it began from; None from scratch."""
    source_foreground: float | None
    """Share of the source's labels; None where there was no source."""

    @property
    def sentence(self) -> str:
        """What was found, and what it was before."""
        found = f"foreground {_share(self.now.foreground)}"
        agree = f"a section's two visits agree (Dice) {_number(self.now.agreement)}"
        if self.before is not None:
            found += f", {_share(self.before.foreground)} before"
            agree += f", {_number(self.before.agreement)} before"
        return f"at {SAMPLES} places of the target, without labels: {found}; {agree}"

    @property
    def warnings(self) -> list[str]:
        """What a person should look at before using the weights."""
        share = self.now.foreground
        taken = f"{_share(share)} of {SAMPLES} places of the target is taken for mitochondrion"
        advice = "check --voxel-size and --invert, and look at the pictures of the report"
        if share < EMPTY:
            return [f"the result is all but empty: {taken}; {advice}"]
        if share > FLOOD:
            return [f"{taken}, more than any tissue has; {advice}"]
        if self.source_foreground is not None and not foreground_is_plausible(share, self.source_foreground):
            return [f"{taken}, and {_share(self.source_foreground)} of the source; {advice}"]
        if self.before is not None and not foreground_is_plausible(share, self.before.foreground):
            return [f"{taken}, and {_share(self.before.foreground)} was before; {advice}"]
        return []

    def table(self) -> dict[str, object]:
        """The same as rows."""
        looks = {"now": self.now, "before": self.before}
        return {
            name: {"foreground": _share(look.foreground), "two visits agree (Dice)": _number(look.agreement)}
            for name, look in looks.items()
            if look is not None
        }


def judge(prepared: Prepared, weights: Path, device: torch.device, bfloat16: bool = False) -> Verdict:
    """Look at a run's weights, and at those it began from, on a few places of the target; no label of it is read."""
    before = None if prepared.start is None else _look(prepared, prepared.start, device, bfloat16)
    return Verdict(_look(prepared, weights, device, bfloat16), before, foreground_share(prepared.source))


def _look(prepared: Prepared, weights: Path, device: torch.device, bfloat16: bool) -> Look:
    network, info = load_weights(weights)
    scores = selection_scores(
        network.to(device),
        backbone_named(info.backbone),
        prepared.target,
        device,
        samples=SAMPLES,
        bfloat16=bfloat16,
    )
    return Look(scores["foreground"] or 0.0, scores["two_context_dice"])


def _share(value: float) -> str:
    """A share in per cent."""
    return f"{value:.2%}"


def _number(value: float | None) -> str:
    """A number between 0 and 1; a dash where there is none."""
    return "–" if value is None else f"{value:.3f}"
