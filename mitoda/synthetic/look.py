"""The look of a piece of drawn tissue: grey values and widths, drawn at random."""

from dataclasses import dataclass

import numpy as np

NEVER = 9.0
"""A threshold on noise that is never reached."""


@dataclass(frozen=True)
class Look:
    """Grey values, 0 (black) to 1 (white), and widths in nanometres of one piece of tissue."""

    cytoplasm: float
    cytoplasm_spread: float
    """From cell to cell, a standard deviation."""
    membrane: float
    membrane_width: float
    membrane_visibility: float
    matrix: float
    crista: float
    crista_spacing: float
    crista_share: float
    """Share of the matrix that has cristae."""
    crista_kind: str
    envelope: float
    """Visibility of the two mitochondrial membranes, 0 to 1."""
    granule: float
    """Strength of the cytoplasm's granules."""
    granule_size: float
    myelin: float
    nucleus: float
    chromatin: float
    lumen: float
    """Inside reticulum and vesicles, and between the membranes of a mitochondrion."""
    resin: float
    reticulum_from: float
    """Level of noise from which there are sheets of reticulum; so are the next three."""
    stacks_from: float
    glycogen_from: float
    chromatin_from: float
    stack_period: float
    warp: float
    """Nanometres by which borders are displaced, a standard deviation."""
    filaments: float
    """Strength of muscle filaments."""
    resin_outside: bool
    """Whether there is resin around the cell that has the nucleus."""
    processes: float
    """Share of other cells that are seen in that resin."""


def draw_look(rng: np.random.Generator, kind: str) -> Look:
    """Draw the look of a piece of tissue."""
    u = rng.uniform
    cytoplasm = u(0.5, 0.85)
    membrane = max(0.02, cytoplasm - u(0.25, 0.65))
    state = rng.choice(["dark", "equal", "pale"], p=[0.7, 0.18, 0.12])
    relative = {"dark": u(-0.42, -0.1), "equal": u(-0.12, 0.03), "pale": u(0.0, 0.15)}[state]
    matrix = float(np.clip(cytoplasm + relative, membrane + 0.02, 0.95))
    bright = state != "pale" and rng.random() < 0.35
    crista = matrix + u(0.06, 0.3) if bright else matrix - u(0.06, 0.35)
    resolved = rng.random() < 0.8

    def seldom(probability: float, low: float, high: float) -> float:
        return u(low, high) if rng.random() < probability else NEVER

    return Look(
        cytoplasm=cytoplasm,
        cytoplasm_spread=u(0.0, 0.09),
        membrane=membrane,
        membrane_width=u(5, 13),
        membrane_visibility=u(0.6, 1.0) if rng.random() < 0.97 else 0.0,
        matrix=matrix,
        crista=float(np.clip(crista if resolved else matrix, membrane - 0.02, 0.95)),
        crista_spacing=u(28, 95),
        crista_share=u(0.1, 0.5) if state == "pale" else u(0.3, 1.0),
        crista_kind=str(rng.choice(["across", "along", "tilted", "tubular", "bent"])),
        envelope=u(0.15, 1.0) if state == "dark" else u(0.7, 1.0),
        granule=u(0.02, 0.14),
        granule_size=u(5, 22),
        myelin=max(0.02, membrane + u(-0.08, 0.12)),
        nucleus=float(np.clip(cytoplasm + u(-0.15, 0.12), 0.1, 0.95)),
        chromatin=float(np.clip(cytoplasm - u(0.08, 0.4), 0.05, 0.9)),
        lumen=float(np.clip(cytoplasm + u(0.0, 0.25), 0, 1)),
        resin=u(0.55, 1.0),
        reticulum_from=seldom(0.75, 0.3, 1.6),
        stacks_from=seldom(0.55, 0.4, 1.4),
        glycogen_from=seldom(0.25, -0.5, 1.2),
        chromatin_from=u(-0.6, 1.2),
        stack_period=u(45, 130),
        warp=u(20, 130),
        filaments=u(0.3, 1.0) if kind == "muscle" else 0.0,
        resin_outside=kind == "culture",
        processes=u(0.0, 0.15),
    )
