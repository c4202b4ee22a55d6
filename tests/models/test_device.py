"""Devices and precision by name."""

import pytest
import torch

from mitoda.errors import InputError
from mitoda.models import device as devices
from mitoda.models.device import choose_bfloat16, choose_device


@pytest.mark.parametrize("has", [True, False])
def test_auto_is_bfloat16_only_on_processors_that_have_it(has, monkeypatch):
    """A precision given by name is always used; a misspelt one is refused."""
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: has)
    cpu = torch.device("cpu")
    assert choose_bfloat16("auto", cpu) is has
    assert choose_bfloat16("bfloat16", cpu)
    assert not choose_bfloat16("float32", cpu)
    with pytest.raises(InputError, match="precision is auto, float32 or bfloat16; got 'half'"):
        choose_bfloat16("half", cpu)


@pytest.mark.parametrize("name", ["cuda:99", "meta", "gpu", ""])
def test_a_missing_or_unknown_device_is_refused_and_not_replaced(name):
    """The message repeats the name."""
    with pytest.raises(InputError, match=f"'{name}'"):
        choose_device(name)
