"""What a run leaves on disk: weights (safetensors with their metadata) and the state to go on from.

Nothing here is ever unpickled from a file a person gave: weights are safetensors, and a state is read with
`torch.load(weights_only=True)`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mitoda import __version__
from mitoda.errors import FileError
from mitoda.models.pair_networks import BACKBONES, PairNetwork, build_network

FORMAT = "mitoda-weights-1"


@dataclass(frozen=True)
class WeightsInfo:
    """What must be known to use a network, and what should be known to trust it. Lengths are nanometres."""

    backbone: str
    pixel: tuple[float, float]
    """Pixel size it was trained at, along rows and columns."""
    spacing: float
    """Distance between the two sections of a pair."""
    method: str = ""
    source: str = ""
    target: str = ""
    start: str = ""
    """Weights that the training began from; empty where from scratch."""
    licence: str = ""
    """Of the data it was trained on."""
    steps: int = 0
    seconds: float = 0.0
    seed: int = 0
    threshold: float = 0.5
    """Probability from which a pixel is mitochondrion, unless the person says otherwise."""
    smoothing: float = 0.0
    """Standard deviation of the smoothing of probabilities along the sections, where the person does not say."""
    smallest: float = 0.0
    """Cubic nanometres below which a component of the mask is dropped, where the person does not say."""
    snap: bool = False
    """Whether boundaries of the mask are moved to each mitochondrion's dark ring, where the person does not say."""
    version: str = __version__
    notes: dict[str, str] = field(default_factory=dict)


def save_weights(
    path: Path, network: PairNetwork, info: WeightsInfo, dtype: torch.dtype = torch.float32
) -> None:
    """Write a network and its metadata, complete or not at all."""
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in network.state_dict().items()
    }
    metadata = {"format": FORMAT, "mitoda": json.dumps(asdict(info))}
    with _replacing(path) as partial:
        partial.write_bytes(save(tensors, metadata=metadata))  # save_file would let nobody else read it


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to; rename it to `path` when the block ends well, and delete it when it does not.

    safetensors and torch report a full disk as errors of their own kinds; all become FileError.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        partial.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        earlier = "; what was saved before is still there" if path.exists() else ""
        raise FileError(
            f"{path} cannot be written ({_first_line(error)}){earlier}; is the disk full? "
            "Free some space and go on with --resume"
        ) from error


def _first_line(error: Exception) -> str:
    """What an error says, in one line: those of torch go on for many."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_info(path: Path) -> WeightsInfo:
    """Read the metadata of a weights file.

    Raises
    ------
    FileError
        If the file is missing, or no safetensors file of mitoda's.
    """
    if not path.is_file():
        raise FileError(f"there is no weights file {path}; 'mitoda weights' lists the bundled ones")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        kind = "a pickled PyTorch checkpoint" if is_pickle(path) else "no safetensors file"
        raise FileError(
            f"{path} is {kind}; mitoda reads only its own .safetensors weights, as 'mitoda adapt' writes them "
            f"({_first_line(error)})"
        ) from error
    if metadata.get("format") != FORMAT:
        raise FileError(
            f"{path} holds tensors but no mitoda metadata (format {metadata.get('format')!r}, expected {FORMAT!r}); "
            "use weights that 'mitoda adapt' wrote"
        )
    try:
        values = json.loads(metadata["mitoda"])
        values["pixel"] = tuple(values["pixel"])
        return WeightsInfo(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(
            f"the metadata of {path} cannot be read ({error}); was it written by a newer mitoda?"
        ) from error


def is_pickle(path: Path) -> bool:
    """Tell whether a file starts like a pickle or the zip archive torch.save writes."""
    with path.open("rb") as file:
        start = file.read(4)
    return start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or start == b"PK\x03\x04"


def load_weights(path: Path) -> tuple[PairNetwork, WeightsInfo]:
    """Read a network in float32, ready to predict.

    Raises
    ------
    FileError
        If the file is missing, no weights file, or made for another architecture.
    """
    info = read_info(path)
    if info.backbone not in BACKBONES:
        raise FileError(
            f"{path} is for a backbone '{info.backbone}' that this mitoda {__version__} does not have "
            f"(it has {', '.join(BACKBONES)})"
        )
    network = build_network(info.backbone)
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        odd = sorted(set(found.items()) ^ set(expected.items()))[0][0]
        raise FileError(
            f"{path} says it is '{info.backbone}' but its tensors are another architecture's: '{odd}' has shape "
            f"{found.get(odd, 'missing')}, expected {expected.get(odd, 'none')}"
        )
    network.load_state_dict(tensors)
    return network.eval(), info


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write all that a run needs to go on, complete or not at all."""
    with _replacing(path) as partial:
        torch.save(state, partial)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises
    ------
    FileError
        If there is none, or it is broken.
    """
    if not path.is_file():
        raise FileError(
            f"there is nothing to resume in {path.parent}: no {path.name}, so it stopped before its first checkpoint; "
            "start it again with --overwrite"
        )
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # torch.load raises whatever the broken bytes lead to
        raise FileError(
            f"{path} is broken and cannot be resumed ({_first_line(error)}); start the run again with --overwrite"
        ) from error
    if not isinstance(state, dict):
        raise FileError(f"{path} is not a state that mitoda wrote; start the run again with --overwrite")
    return state
