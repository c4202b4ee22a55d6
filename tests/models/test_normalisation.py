"""Instance normalisation: equal to PyTorch's, forward and backward, in both types."""

import pytest
import torch
from torch import nn

from mitoda.models import normalisation as instance_norm
from mitoda.models.normalisation import InstanceNorm, is_channels_last


def both(channels: int, affine: bool) -> tuple[InstanceNorm, nn.InstanceNorm2d]:
    """Ours and PyTorch's, with the same learnt scale and offset."""
    ours, reference = InstanceNorm(channels, affine), nn.InstanceNorm2d(channels, affine=affine)
    if affine:
        with torch.no_grad():
            ours.weight.copy_(torch.linspace(0.5, 2, channels))
            ours.bias.copy_(torch.linspace(-1, 1, channels))
        reference.load_state_dict(ours.state_dict())
    return ours, reference


def with_gradients(norm: nn.Module, images: torch.Tensor, back: torch.Tensor) -> list[torch.Tensor]:
    """Output, and the gradients of the images and of all parameters."""
    images = images.clone().requires_grad_()
    output = norm(images)
    return [output.detach(), *torch.autograd.grad(output, [images, *norm.parameters()], back)]


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("parts", ["together", "one by one"])
def test_it_is_pytorchs_instance_normalisation_forward_and_backward(affine, parts, monkeypatch):
    """Channels last, far from zero mean; in one go, or in parts that fit the cache."""
    if parts == "one by one":
        monkeypatch.setattr(instance_norm, "CACHED_VALUES", 1)
    ours, reference = both(6, affine)
    images = (5 + 3 * torch.randn(3, 6, 9, 7)).contiguous(memory_format=torch.channels_last)
    back = torch.randn_like(images)
    found, expected = with_gradients(ours, images, back), with_gradients(reference, images, back)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_its_backward_is_the_derivative_of_its_forward():
    """Against finite differences, in double precision."""
    norm = InstanceNorm(2, affine=True).double()
    images = torch.randn(2, 2, 3, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    step, back = 1e-5, torch.randn_like(images)
    _, found, *_ = with_gradients(norm, images, back)
    norm.requires_grad_(False)
    for place in [(0, 0, 0, 0), (1, 1, 2, 3), (0, 1, 1, 2)]:
        up, down = images.clone(), images.clone()
        up[place] += step
        down[place] -= step
        slope = ((norm(up) - norm(down)) * back).sum() / (2 * step)
        assert float(found[place]) == pytest.approx(float(slope), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("affine", [False, True])
def test_in_bfloat16_it_differs_from_float32_by_its_rounding_alone(affine):
    """Also where the mean is ten deviations away; what comes out is bfloat16, channels last, and may be changed."""
    ours, _ = both(6, affine)
    images = (10 + torch.randn(2, 6, 40, 40)).bfloat16().contiguous(memory_format=torch.channels_last)
    back = torch.randn_like(images)
    found = with_gradients(ours, images, back)
    expected = with_gradients(ours, images.float(), back.float())
    assert found[0].dtype == torch.bfloat16
    assert is_channels_last(found[0])
    for one, other in zip(found, expected, strict=True):
        assert float((one.float() - other).abs().max()) < 0.01 * float(other.abs().max())
    output = ours(images.clone().requires_grad_())
    torch.relu_(output).sum().backward()


def test_a_constant_channel_becomes_its_offset():
    """The variance is 0 and never below, in both types."""
    norm, _ = both(3, affine=True)
    for dtype in (torch.float32, torch.bfloat16):
        images = torch.full((1, 3, 8, 8), 7.0, dtype=dtype).contiguous(memory_format=torch.channels_last)
        expected = norm.bias.detach()[None, :, None, None].expand_as(images)
        assert torch.allclose(norm(images).float(), expected, atol=0.01)
