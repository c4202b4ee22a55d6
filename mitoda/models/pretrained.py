"""The weights that come with mitoda, by name."""

from pathlib import Path

from mitoda.errors import FileError

DEFAULT = "general"
"""What `mitoda segment` uses, and `mitoda adapt` begins from, unless told otherwise."""


def weights_folder() -> Path:
    """Where the bundled weights are: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parents[1] / "weights"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "weights"


def list_weights() -> dict[str, Path]:
    """Name and file of every bundled set of weights."""
    return {path.stem: path for path in sorted(weights_folder().glob("*.safetensors"))}


def find_weights(name: str) -> Path:
    """Return the file of bundled weights or, for anything else, the path itself.

    Raises
    ------
    FileError
        If it is neither a bundled name nor a file.
    """
    bundled = list_weights()
    wanted = DEFAULT if name == "default" else name
    if wanted in bundled:
        return bundled[wanted]
    path = Path(name)
    if path.is_dir() and (path / "weights.safetensors").is_file():
        return path / "weights.safetensors"
    if not path.is_file():
        raise FileError(
            f"'{name}' is neither a file nor one of the bundled weights ({', '.join(bundled) or 'there are none'})"
        )
    return path
