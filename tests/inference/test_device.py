"""Devices and precision as a person asks for them."""

import pytest
import torch

from mitoda.errors import InputError
from mitoda.inference import device as devices
from mitoda.inference.device import choose_bfloat16


@pytest.mark.parametrize("has", [True, False])
def test_precision_is_taken_as_asked_and_chosen_by_what_the_processor_has(has, monkeypatch):
    """`auto` is bfloat16 only where it is no imitation; a misspelt precision is refused."""
    monkeypatch.setattr(devices, "cpu_has_bfloat16", lambda: has)
    cpu = torch.device("cpu")
    assert choose_bfloat16("auto", cpu) is has
    assert choose_bfloat16("bfloat16", cpu)
    assert not choose_bfloat16("float32", cpu)
    with pytest.raises(InputError, match="--precision is auto, float32 or bfloat16; got 'half'"):
        choose_bfloat16("half", cpu)
