"""The arrays of a run in blocks: OME-Zarr groups of one level, whose shards are written by one block each."""

from itertools import product
from pathlib import Path
from typing import Any

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


def remove_shards(array: Any, region: tuple[slice, ...]) -> None:
    """Remove the files of a region before it is written: a process that died may have left them torn, and zarr reads
    those that it changes in part, at the ends of the volume."""
    folder = Path(array.store_path.store.root) / array.store_path.path
    sides = array.shards or array.chunks
    for place in product(
        *(range(one.start // side, -(-one.stop // side)) for one, side in zip(region, sides, strict=True))
    ):
        (folder / array.metadata.encode_chunk_key(place)).unlink(missing_ok=True)
