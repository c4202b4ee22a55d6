"""A trained network with everything needed to use it."""

import torch

from mitoda.data.geometry import Geometry
from mitoda.models.backbones import BACKBONES
from mitoda.models.model import Model, load_model
from mitoda.models.weights import WeightsInfo, load_weights
from tests.fakes import compact_weights, tiny_network

INFO = WeightsInfo("compact", (4.6, 5.0), 40.0)


def test_a_run_folder_and_its_weights_file_load_the_same_model(tmp_path):
    """All tensors, the metadata, the backbone's recipe and the geometry."""
    path = tmp_path / "weights.safetensors"
    compact_weights(path)
    expected, info = load_weights(path)
    for given in (path, tmp_path, str(tmp_path)):
        model = load_model(given, "cpu", "float32")
        assert model.info == info
        assert model.backbone is BACKBONES["compact"]
        assert model.geometry == Geometry(info.pixel, info.spacing)
        assert not model.bfloat16
        assert not model.network.training
        tensors = zip(model.network.state_dict().values(), expected.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in tensors)


def test_moving_a_model_leaves_the_first_one_where_it_is():
    """On the same device the network is shared; only the precision differs."""
    model = Model(tiny_network(), INFO)
    moved = model.to(torch.device("cpu"), "bfloat16")
    assert moved.bfloat16
    assert not model.bfloat16
    assert moved.network is model.network
    assert model.geometry == Geometry((4.6, 5.0), 40.0)
