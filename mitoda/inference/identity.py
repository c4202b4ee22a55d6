"""Fingerprint of a segmentation run, so that it is resumed only with the same input and settings."""

import hashlib
import json

import numpy as np

from mitoda.inference.settings import Resolved, SegmentSettings
from mitoda.models.model import Model
from mitoda.volumes import Volume


def run_identity(volume: Volume, model: Model, settings: SegmentSettings, resolved: Resolved) -> str:
    """Fingerprint of all that decides the first pass, so that a run is resumed only if it is unchanged.

    The first and the last section stand for the volume: they tell a changed file, other axes and inverted contrast.
    """
    content = hashlib.sha256()
    for section in sorted({0, volume.shape[0] - 1}):
        content.update(np.ascontiguousarray(volume.read(section)).tobytes())
    weights = hashlib.sha256()
    for tensor in model.network.state_dict().values():
        weights.update(tensor.cpu().numpy().tobytes())
    decisive = {
        "volume": [content.hexdigest(), volume.shape, str(volume.dtype), volume.voxel_size],
        "weights": weights.hexdigest(),
        "info": [model.info.backbone, model.info.pixel, model.info.spacing, model.bfloat16],
        "prediction": [settings.tile, settings.overlap, settings.flips, resolved.smoothing],
        "mask": [resolved.threshold, resolved.snap, settings.boundary, settings.mask_value],
    }
    return fingerprint(decisive)


def fingerprint(content: object) -> str:
    """Short hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
