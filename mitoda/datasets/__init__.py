"""Public data sets by name: where they are published, how they are verified, and their conversion to TIFF."""

from mitoda.datasets.cache import ResolvedSplit, default_dest, find_dataset, is_dataset_spec, resolve
from mitoda.datasets.catalogue import DATASETS
from mitoda.datasets.fetch import fetch_dataset
from mitoda.datasets.schema import Dataset, DatasetFile, FetchEvent, LabelRule, Sections, Split

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
    "find_dataset",
    "is_dataset_spec",
    "resolve",
]
