"""Volumes on disk or in memory, read section by section; formats are one file each."""

from mitoda.volumes.volume import ArrayVolume, Volume, VoxelSize

__all__ = ["ArrayVolume", "Volume", "VoxelSize"]
