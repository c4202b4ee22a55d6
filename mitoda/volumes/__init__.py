"""Volumes on disk or in memory, read section by section; formats are one file each."""

from mitoda.volumes.cached import CachedVolume
from mitoda.volumes.opening import open_labels, open_volume
from mitoda.volumes.resuming import PartialSections, read_partial
from mitoda.volumes.volume import ArrayVolume, Volume, VoxelSize
from mitoda.volumes.writer import SectionWriter, write_sections

__all__ = [
    "ArrayVolume",
    "CachedVolume",
    "PartialSections",
    "SectionWriter",
    "Volume",
    "VoxelSize",
    "open_labels",
    "open_volume",
    "read_partial",
    "write_sections",
]
