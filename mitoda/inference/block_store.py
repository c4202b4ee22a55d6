"""The arrays of a run in blocks: OME-Zarr groups of one level, whose shards are written by one block each."""

from pathlib import Path

import numpy as np

from mitoda.volumes.volume import Lengths

CHUNK, SHARD = (16, 256, 256), (16, 1024, 1024)
"""Sections, rows and columns that are compressed together, and that make a file."""


def shard_sides(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Sides of a shard, at most those of the volume rounded up to chunks."""
    sections, rows, columns = (
        min(shard, -(-size // chunk) * chunk) for size, chunk, shard in zip(shape, CHUNK, SHARD, strict=True)
    )
    return sections, rows, columns


def create_array(path: Path, shape: tuple[int, int, int], dtype: np.dtype, lengths: Lengths) -> None:
    """Create a group with an array of zeros, and the scale as far as it is known."""
    import zarr

    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    scale = [length or 1.0 for length in lengths]
    for axis, length in zip(axes, lengths, strict=True):
        if length is None:
            del axis["unit"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    scales = [{"name": path.stem, "axes": axes, "datasets": [level]}]
    group = zarr.create_group(path, attributes={"ome": {"version": "0.5", "multiscales": scales}})
    group.create_array(
        "0",
        shape=shape,
        dtype=dtype,
        chunks=CHUNK,
        shards=shard_sides(shape),
        fill_value=0,
        dimension_names=list("zyx"),
    )
