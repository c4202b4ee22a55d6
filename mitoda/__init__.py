"""mitoda: mitochondria in electron-microscopy stacks that nobody has labelled.

The names of `__all__` are imported when they are first used, so `import mitoda` loads neither torch nor matplotlib.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mitoda.evaluation.measuring import measure
    from mitoda.evaluation.scoring import score
    from mitoda.inference.segment import segment
    from mitoda.inference.settings import SegmentSettings
    from mitoda.inference.streaming import predict
    from mitoda.models.model import Model, load_model
    from mitoda.postprocessing.instances import instances
    from mitoda.training.adapt import adapt
    from mitoda.training.settings import Plan, TrainingSettings
    from mitoda.volumes.opening import open_labels, open_volume

__version__ = "0.1.0"

__all__ = [
    "Model",
    "Plan",
    "SegmentSettings",
    "TrainingSettings",
    "adapt",
    "instances",
    "load_model",
    "measure",
    "open_labels",
    "open_volume",
    "predict",
    "score",
    "segment",
]

_MODULES = {
    "Model": "mitoda.models.model",
    "Plan": "mitoda.training.settings",
    "SegmentSettings": "mitoda.inference.settings",
    "TrainingSettings": "mitoda.training.settings",
    "adapt": "mitoda.training.adapt",
    "instances": "mitoda.postprocessing.instances",
    "load_model": "mitoda.models.model",
    "measure": "mitoda.evaluation.measuring",
    "open_labels": "mitoda.volumes.opening",
    "open_volume": "mitoda.volumes.opening",
    "predict": "mitoda.inference.streaming",
    "score": "mitoda.evaluation.scoring",
    "segment": "mitoda.inference.segment",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mitoda' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
