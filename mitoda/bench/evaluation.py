"""Weights scored on the held-out half, section by section: nothing is written, and one map is in memory."""

from collections.abc import Iterator
from pathlib import Path

import torch

from mitoda.bench.task import HeldOut
from mitoda.checkpoints import load_weights
from mitoda.devices import choose_bfloat16
from mitoda.geometry import Geometry
from mitoda.inference import predict_sections
from mitoda.metrics import rank_section
from mitoda.networks import backbone_named
from mitoda.predictor import InferenceSettings
from mitoda.scoring import ScoredSection


def score_weights(weights: Path, held_out: HeldOut, device: torch.device) -> Iterator[ScoredSection]:
    """Yield the score of each section as `mitoda segment` predicts it by default.

    Whole sections, no mirrored views, no small components dropped, threshold and smoothing along the sections as
    they are in the weights: the mask that `mitoda segment` writes has the same F1, MCC and IoU. Average precision
    is of the float map.
    """
    network, info = load_weights(weights)
    settings = InferenceSettings(smoothing=info.smoothing, bfloat16=choose_bfloat16("auto", device))
    predicted = predict_sections(
        network,
        backbone_named(info.backbone),
        Geometry(info.pixel, info.spacing),
        held_out.volume,
        settings,
        device,
    )
    for section, probability in enumerate(predicted):
        label = held_out.labels.read(section)
        if held_out.ignore is not None:
            scored = held_out.ignore.read(section) == 0
            probability, label = probability[scored], label[scored]
        yield ScoredSection(section, *rank_section(probability, label, info.threshold, "probability"))
