"""Weights files (safetensors with mitoda's metadata), the pretrained ones, and the state a run is resumed from.

No file is ever unpickled: weights are safetensors, and a state is read with `torch.load(weights_only=True)`.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mitoda import __version__
from mitoda.data.geometry import THIN_NM
from mitoda.errors import FileError
from mitoda.models.backbones import BACKBONES, build_network
from mitoda.models.pair_networks import PairNetwork
from mitoda.volumes.files import atomic_write
from mitoda.volumes.records import parse_record

FORMAT = "mitoda-weights-1"

DEFAULT_WEIGHTS = "general"
"""Pretrained weights that `mitoda segment` uses and `mitoda adapt` starts from by default."""

Text = Annotated[str, Field(max_length=100_000)]
Length = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class ThinSections:
    """Defaults of segmentation in stacks of thin sections; see `WeightsInfo`."""

    threshold: Probability
    snap: bool


@dataclass(frozen=True)
class WeightsInfo:
    """Metadata of weights: how to use them, and where they come from. Lengths are nanometres."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    backbone: Text
    pixel: tuple[Length, Length]
    """Pixel size of the training, along rows and columns."""
    spacing: Length
    """Distance between the two sections of a pair."""
    method: Text = ""
    source: Text = ""
    target: Text = ""
    start: Text = ""
    """Weights that the training started from; empty if from scratch."""
    licence: Text = ""
    """Of the training data."""
    steps: Annotated[int, Field(ge=0)] = 0
    seconds: NotNegative = 0.0
    seed: int = 0
    threshold: Probability = 0.5
    """Default probability from which a pixel is mitochondrion."""
    smoothing: NotNegative = 0.0
    """Default standard deviation of the smoothing of probabilities along the sections."""
    smallest: NotNegative = 0.0
    """Default volume in nm³ below which a component of the mask is dropped."""
    snap: bool = False
    """Whether the boundaries of the mask snap to membranes by default."""
    thin: ThinSections | None = None
    """Other defaults for stacks of thin sections (`THIN_NM`), if there are any."""
    version: Text = __version__
    notes: Annotated[dict[Text, Text], Field(max_length=1000)] = field(default_factory=dict)

    def for_sections(self, thickness_nm: float) -> "WeightsInfo":
        """Return the metadata with the defaults that hold for sections of a thickness."""
        if self.thin is None or thickness_nm > THIN_NM:
            return replace(self, thin=None)
        return replace(self, threshold=self.thin.threshold, snap=self.thin.snap, thin=None)


def weights_folder() -> Path:
    """Return the folder of the pretrained weights: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parents[1] / "weights"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "weights"


def list_weights() -> dict[str, Path]:
    """Return the name and file of all pretrained weights."""
    return {path.stem: path for path in sorted(weights_folder().glob("*.safetensors"))}


def find_weights(name: str | Path) -> Path:
    """Return the file of the pretrained weights `name` ("default" is `DEFAULT_WEIGHTS`), of a run's folder, or `name`.

    Raises
    ------
    FileError
        If there is no such file.
    """
    pretrained = list_weights()
    wanted = DEFAULT_WEIGHTS if name == "default" else str(name)
    if wanted in pretrained:
        return pretrained[wanted]
    path = Path(name)
    if path.is_dir() and (path / "weights.safetensors").is_file():
        return path / "weights.safetensors"
    if not path.is_file():
        raise FileError(
            f"'{name}' is neither a weights file, nor the folder of a run, nor one of the pretrained weights "
            f"({', '.join(pretrained) or 'there are none'})"
        )
    return path


def save_weights(
    path: Path, network: PairNetwork, info: WeightsInfo, dtype: torch.dtype = torch.float32
) -> None:
    """Write a network and its metadata, completely or not at all."""
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in network.state_dict().items()
    }
    metadata = {"format": FORMAT, "mitoda": json.dumps(asdict(info))}
    with atomic_write(path) as partial:
        partial.write_bytes(save(tensors, metadata=metadata))  # save_file makes files that others cannot read


def read_info(path: Path) -> WeightsInfo:
    """Read the metadata of a weights file.

    Raises
    ------
    FileError
        If the file is missing, not a safetensors file, or without valid metadata of mitoda.
    """
    if not path.is_file():
        raise FileError(f"there is no weights file {path}; 'mitoda weights' lists the pretrained ones")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        kind = "a pickled PyTorch checkpoint" if _is_pickle(path) else "not a safetensors file"
        raise FileError(
            f"{path} is {kind} ({first_line(error)}); mitoda reads only weights that 'mitoda adapt' wrote"
        ) from error
    if metadata.get("format") != FORMAT:
        raise FileError(
            f"{path} has no mitoda metadata (format {metadata.get('format')!r}, expected {FORMAT!r}); "
            "use weights that 'mitoda adapt' wrote"
        )
    return parse_record(metadata.get("mitoda", ""), WeightsInfo, f"the metadata of {path}")


def _is_pickle(path: Path) -> bool:
    """Whether a file starts like a pickle or the zip archive that torch.save writes."""
    with path.open("rb") as file:
        start = file.read(4)
    return start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or start == b"PK\x03\x04"


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def load_weights(path: Path) -> tuple[PairNetwork, WeightsInfo]:
    """Read a network in float32 and evaluation mode.

    Raises
    ------
    FileError
        If the file is missing or no weights file, its tensors do not fit the backbone, or they are not finite numbers.
    """
    info = read_info(path)
    if info.backbone not in BACKBONES:
        raise FileError(
            f"{path} needs the backbone '{info.backbone}', which mitoda {__version__} does not have "
            f"(it has {', '.join(BACKBONES)}); the file may be from a newer mitoda"
        )
    network = build_network(info.backbone)
    try:
        network.load_state_dict(_read_tensors(path, info.backbone, network.state_dict()))
    except SafetensorError as error:
        raise FileError(f"{path} is damaged: {first_line(error)}; copy or download it again") from error
    return network.eval(), info


def _read_tensors(path: Path, backbone: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Read tensors in float32; refuse those of other names or shapes before reading any."""
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    with safe_open(path, framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
        if found != shapes:
            odd = min(set(found.items()) ^ set(shapes.items()))[0]
            raise FileError(
                f"{path} does not fit its backbone '{backbone}': tensor '{odd}' has shape "
                f"{found.get(odd, 'missing')}, expected {shapes.get(odd, 'none')}"
            )
        tensors = {name: file.get_tensor(name) for name in found}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise FileError(
                f"{path} is damaged: tensor '{name}' holds {tensor.dtype}, expected floating point"
            )
        if not bool(tensor.float().isfinite().all()):
            raise FileError(f"{path} is damaged: tensor '{name}' holds NaN or infinite values")
    return {name: tensor.float() for name, tensor in tensors.items()}


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write all that a run needs to be resumed, completely or not at all."""
    with atomic_write(path) as partial:
        try:
            torch.save(state, partial)
        except RuntimeError as error:  # what torch makes of a full disk
            raise OSError(first_line(error)) from error


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises
    ------
    FileError
        If the file is missing or damaged.
    """
    if not path.is_file():
        raise FileError(
            f"{path.parent} cannot be resumed: it has no {path.name}, so the run stopped before its first "
            "checkpoint; start it again with --overwrite"
        )
    try:
        state = torch.load(path, weights_only=True)
    except Exception as error:  # torch.load raises errors of any kind on damaged files
        raise FileError(
            f"{path} is damaged and cannot be resumed ({first_line(error)}); start the run again with --overwrite"
        ) from error
    if not isinstance(state, dict):
        raise FileError(f"{path} was not written by mitoda; start the run again with --overwrite")
    return state
