"""What a person writes to name a volume: PATH, or PATH:KEY for an array inside an HDF5 file.

This is the one place that decides what a colon means. IMAGES:LABELS may hold addresses with keys on both sides:

    stack.h5:/volumes/raw:stack.h5:/volumes/labels
    └────── IMAGES ─────┘ └──────── LABELS ──────┘
"""

import re
from pathlib import Path

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".hdf4", ".he5", ".mat")
"""Endings of files that may hold several arrays. A .mat file is HDF5 since MATLAB 7.3."""

_KEYED = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, HDF5_SUFFIXES))})):(.*)", re.IGNORECASE | re.DOTALL)


def split_key(address: str | Path) -> tuple[Path, str]:
    """Return the file and the key in it, which is empty without one. A file with a colon in its name is a file.

    Examples
    --------
    >>> split_key("stack.h5:/volumes/raw")
    (PosixPath('stack.h5'), '/volumes/raw')
    >>> split_key("stack.tif")[1]
    ''
    """
    text = str(address)
    match = _KEYED.fullmatch(text)
    if match is None or Path(text).exists():
        return Path(text), ""
    return Path(match[1]), match[2]


def file_of(address: str | Path) -> Path:
    """Return the file or folder of an address, without a key."""
    return split_key(address)[0]


def split_pair(text: str) -> tuple[str, str] | None:
    """Split IMAGES:LABELS; None without a colon between two addresses.

    A colon with existing files on both sides counts first, then one that belongs neither to a drive letter nor to a
    key.

    Examples
    --------
    >>> split_pair("stack.tif:mask.tif"), split_pair("a.h5:/raw:b.h5:/labels"), split_pair("stack.h5:/raw")
    (('stack.tif', 'mask.tif'), ('a.h5:/raw', 'b.h5:/labels'), None)
    """
    pairs = [(text[:index], text[index + 1 :]) for index, letter in enumerate(text) if letter == ":"]
    for images, labels in pairs:
        if file_of(images).exists() and file_of(labels).exists():
            return images, labels
    for images, labels in pairs:
        key_follows = labels.startswith("/") and file_of(f"{images}:{labels}") == Path(images)
        drive = len(images) == 1
        if not drive and not key_follows:
            return images, labels
    return None
