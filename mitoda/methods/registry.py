"""The methods by name, and their named settings."""

from collections.abc import Mapping

from mitoda.errors import InputError
from mitoda.methods.isc import Isc
from mitoda.methods.method import Arithmetic, Method
from mitoda.methods.supervised import Oracle, SourceOnly
from mitoda.networks import backbone_named, build_network

METHODS: dict[str, type[Method]] = {
    "isc": Isc,
    "source-only": SourceOnly,
    "oracle": Oracle,
}
"""Every method, by the name of `--method`."""

PRESETS: dict[str, tuple[str, dict[str, str]]] = {
    "isc-i": ("isc", {"segmentation_adversarial": "0", "residual_adversarial": "0", "consistency": "0"}),
    "isc-ii": ("isc", {"residual_adversarial": "0", "consistency": "0"}),
    "isc-iii": ("isc", {"segmentation_adversarial": "0", "consistency": "0"}),
    "isc-iv": ("isc", {"consistency": "0"}),
    "isc-v": ("isc", {}),
}
"""Named settings of a method: the ablation of the DA-ISC paper, (i) L_s, (ii) + L_seg, (iii) L_s + L_res, (iv) both,
(v) all."""


def method_named(name: str) -> tuple[type[Method], dict[str, str]]:
    """Look a method or a preset up; return its class and the settings its name implies.

    Raises
    ------
    InputError
        If there is none of that name; the message lists those there are.
    """
    base, implied = PRESETS.get(name, (name, {}))
    if base not in METHODS:
        known = ", ".join([*METHODS, *PRESETS])
        raise InputError(f"there is no method '{name}'; choose one of: {known}")
    return METHODS[base], implied


def build_method(name: str, backbone: str, assignments: Mapping[str, str], arithmetic: Arithmetic) -> Method:
    """Build a method with a fresh network on its device.

    Parameters
    ----------
    name : str
        Of a method or a preset.
    backbone : str
        See `networks.BACKBONES`.
    assignments : mapping of str to str
        What `--set` gave; wins over what the preset implies.
    """
    cls, implied = method_named(name)
    settings = cls.Settings.parse({**implied, **assignments})
    network = build_network(backbone).to(arithmetic.device)
    return cls(network, backbone_named(backbone), settings, arithmetic).to(arithmetic.device)
