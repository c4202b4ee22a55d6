"""Where to compute, as a person asks for it."""

import torch

from mitoda.errors import InputError


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:N` or `mps` into a device that is there.

    `auto` takes CUDA, then Apple's MPS, then the CPU. A device asked for by name is never replaced by another.

    Raises
    ------
    InputError
        If the name is unknown or the device is missing.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"there is no device '{name}'; give auto, cpu, cuda, cuda:N or mps")
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise InputError(
            f"the device '{name}' is not here (PyTorch {torch.__version__} sees "
            f"{torch.cuda.device_count()} CUDA devices); give --device auto or cpu"
        )
    return device


def describe_device(device: torch.device) -> str:
    """Name a device for a person: the card's name, or the CPU's threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        return f"CPU ({torch.get_num_threads()} threads)"
    return str(device)
