"""A trained network with everything needed to use it."""

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mitoda.data.geometry import Geometry
from mitoda.models.backbones import Backbone, backbone_named
from mitoda.models.device import choose_bfloat16, choose_device
from mitoda.models.pair_networks import PairNetwork
from mitoda.models.weights import WeightsInfo, find_weights, load_weights

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Model:
    """A network, its weights' metadata, and where and how it computes."""

    network: PairNetwork
    """In float32, on `device`, in evaluation mode."""
    info: WeightsInfo
    device: torch.device = CPU
    bfloat16: bool = False
    """Whether predictions are computed in bfloat16."""

    @property
    def backbone(self) -> Backbone:
        """Recipe of the network."""
        return backbone_named(self.info.backbone)

    @property
    def geometry(self) -> Geometry:
        """Pixel size and pair spacing the network was trained at."""
        return Geometry(self.info.pixel, self.info.spacing)

    def to(self, device: str | torch.device = "auto", precision: str = "auto") -> "Model":
        """Return the model on another device or in another precision; this one stays where it is.

        Parameters
        ----------
        device : str or torch.device
            See `choose_device`.
        precision : {"auto", "float32", "bfloat16"}
            See `choose_bfloat16`.

        Raises
        ------
        InputError
            If there is no such device or precision.
        """
        chosen = choose_device(str(device))
        network = self.network if chosen == self.device else copy.deepcopy(self.network).to(chosen)
        return replace(self, network=network, device=chosen, bfloat16=choose_bfloat16(precision, chosen))


def load_model(
    weights: str | Path = "default", device: str | torch.device = "auto", precision: str = "auto"
) -> Model:
    """Load a trained network, ready to predict.

    Parameters
    ----------
    weights : str or Path
        Name of weights that come with mitoda, a .safetensors file, or the folder of a run.
    device : str or torch.device
        See `choose_device`.
    precision : {"auto", "float32", "bfloat16"}
        See `choose_bfloat16`.

    Raises
    ------
    InputError
        If there is no such device or precision.
    FileError
        If there are no such weights, or the file is damaged or not mitoda's.

    Examples
    --------
    >>> model = load_model("general", device="cpu")
    >>> model.geometry
    Geometry(pixel=(5.0, 5.0), spacing=50.0)
    """
    network, info = load_weights(find_weights(str(weights)))
    return Model(network, info).to(device, precision)
