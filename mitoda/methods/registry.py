"""The methods by name, and their named settings."""

from collections.abc import Mapping

from mitoda.errors import InputError
from mitoda.methods.adaptsegnet import AdaptSegNet
from mitoda.methods.base import Arithmetic, Method
from mitoda.methods.da_vsn import DaVsn
from mitoda.methods.damt_net import DamtNet
from mitoda.methods.dann import Dann
from mitoda.methods.isc import Isc
from mitoda.methods.mitoda import SelfTraining
from mitoda.methods.supervised import Oracle, SourceOnly
from mitoda.methods.ualr import Ualr
from mitoda.methods.y_net import YNet
from mitoda.models.backbones import BACKBONES, backbone_named, build_network

METHODS: dict[str, type[Method]] = {
    "mitoda": SelfTraining,
    "isc": Isc,
    "source-only": SourceOnly,
    "oracle": Oracle,
    "y-net": YNet,
    "dann": Dann,
    "adaptsegnet": AdaptSegNet,
    "ualr": Ualr,
    "damt-net": DamtNet,
    "da-vsn": DaVsn,
}
"""Every method, by the name of `--method`."""

NEED_RESIDUAL = frozenset({"isc", "isc-iii", "isc-iv", "isc-v"})
"""Names that read the residual of a pair, and so need a network that predicts it."""

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


def check_backbone(name: str, backbone: str) -> None:
    """Refuse a backbone that lacks what a method reads.

    Raises
    ------
    InputError
        If the method or preset needs the residual of a pair and the backbone sees each section on its own.
    """
    if name in NEED_RESIDUAL and not backbone_named(backbone).has_residual:
        pairs = ", ".join(known for known, recipe in BACKBONES.items() if recipe.has_residual)
        raise InputError(
            f"'{name}' learns from what changes between two sections, which the backbone '{backbone}' does not "
            f"predict: it sees each section on its own; choose one of: {pairs}"
        )


def build_method(
    name: str,
    backbone: str,
    assignments: Mapping[str, str],
    arithmetic: Arithmetic,
    *,
    from_weights: bool = False,
) -> Method:
    """Build a method with a fresh network on its device.

    Parameters
    ----------
    name : str
        Of a method or a preset.
    backbone : str
        See `networks.BACKBONES`.
    assignments : mapping of str to str
        What `--set` gave; wins over what the preset and the start imply.
    from_weights : bool
        Whether the run begins from weights that know mitochondria.
    """
    cls, implied = method_named(name)
    check_backbone(name, backbone)
    by_start = cls.implied_by_start if from_weights else {}
    settings = cls.Settings.parse({**by_start, **implied, **assignments})
    network = build_network(backbone).to(arithmetic.device)
    return cls(network, backbone_named(backbone), settings, arithmetic).to(arithmetic.device)
