"""Weights scored on the held-out half, section by section: nothing is written, and one map is in memory."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mitoda.benchmark.tasks import HeldOut
from mitoda.data.geometry import Geometry, component_limit
from mitoda.evaluation.metrics import rank_mask, rank_section
from mitoda.evaluation.scoring import ScoredSection
from mitoda.inference.predictor import InferenceSettings
from mitoda.inference.streaming import check_volume, predict_sections
from mitoda.models.backbones import backbone_named
from mitoda.models.device import choose_bfloat16
from mitoda.models.weights import load_weights
from mitoda.postprocessing.mask import MaskFinalizer


def score_weights(weights: Path, held_out: HeldOut, device: torch.device) -> Iterator[ScoredSection]:
    """Yield the score of each section as `mitoda segment` predicts it by default.

    Whole sections, no mirrored views; threshold, smoothing along the sections, rings and the smallest component as
    they are in the weights: the mask that `mitoda segment` writes has the same F1, MCC and IoU. Average precision is
    of the float map. Sections wait, packed, until the last one says where each component ends.
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
    voxel_size = check_volume(held_out.volume)
    smallest = component_limit(info.smallest, voxel_size, held_out.volume.shape[0])
    finalizer = MaskFinalizer(info.threshold, smallest, info.snap, voxel_size)
    packed: list[tuple[bytes, ScoredSection]] = []
    for section, probability in enumerate(predicted):
        pending = finalizer.pending(probability)
        finalizer.add(pending, held_out.volume.read(section) if finalizer.needs_images else None)
        label, seen = _label_of(held_out, section)
        score, ranking = rank_section(probability[seen], label[seen], info.threshold, "probability")
        packed.append((zlib.compress(pending.tobytes(), 1), ScoredSection(section, score, ranking)))
    for content, scored in packed:
        pending = np.frombuffer(zlib.decompress(content), np.uint8).reshape(held_out.volume.shape[1:])
        mask = finalizer.finalize(scored.section, pending)
        label, seen = _label_of(held_out, scored.section)
        at_threshold, _ = rank_mask(mask[seen], label[seen] != 0)
        yield replace(scored, score=replace(scored.score, confusion=at_threshold.confusion))


def _label_of(held_out: HeldOut, section: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a section, and where they are scored."""
    label = held_out.labels.read(section)
    if held_out.ignore is None:
        return label, np.ones(label.shape, bool)
    return label, held_out.ignore.read(section) == 0
