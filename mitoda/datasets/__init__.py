"""Public data sets by name: where they are, how they are verified, and their conversion to one layout."""

from mitoda.datasets.cache import ResolvedSplit, default_dest, is_dataset_spec, resolve
from mitoda.datasets.catalogue import DATASETS
from mitoda.datasets.events import FetchEvent
from mitoda.datasets.fetch import fetch_dataset
from mitoda.datasets.schema import Dataset, DatasetFile, LabelRule, Sections, Split

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetFile",
    "FetchEvent",
    "LabelRule",
    "ResolvedSplit",
    "Sections",
    "Split",
    "default_dest",
    "fetch_dataset",
    "is_dataset_spec",
    "resolve",
]
