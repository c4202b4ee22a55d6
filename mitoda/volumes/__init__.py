"""Volumes on disk or in memory, read section by section."""

from mitoda.volumes.opening import open_labels, open_values, open_volume
from mitoda.volumes.partial import PartialSections, read_partial
from mitoda.volumes.volume import ArrayVolume, Volume, VoxelSize
from mitoda.volumes.wrappers import CachedVolume
from mitoda.volumes.writer import SectionWriter, write_sections

__all__ = [
    "ArrayVolume",
    "CachedVolume",
    "PartialSections",
    "SectionWriter",
    "Volume",
    "VoxelSize",
    "open_labels",
    "open_values",
    "open_volume",
    "read_partial",
    "write_sections",
]
