"""Every method by name."""

from collections.abc import Mapping

from mitoda.errors import InputError
from mitoda.methods.adaptsegnet import AdaptSegNet
from mitoda.methods.base import Arithmetic, Method, MethodSettings, SelfLabelling, Teacher
from mitoda.methods.da_vsn import DaVsn
from mitoda.methods.damt_net import DamtNet
from mitoda.methods.dann import Dann
from mitoda.methods.isc import Isc
from mitoda.methods.mitoda import SelfTraining
from mitoda.methods.supervised import Oracle, SourceOnly
from mitoda.methods.ualr import Ualr
from mitoda.methods.y_net import YNet
from mitoda.models.backbones import BACKBONES, backbone_named, build_network

__all__ = [
    "METHODS",
    "NEED_RESIDUAL",
    "PRESETS",
    "Arithmetic",
    "Method",
    "MethodSettings",
    "SelfLabelling",
    "Teacher",
    "build_method",
    "check_backbone",
    "method_named",
    "parse_settings",
]

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

PRESETS: dict[str, tuple[str, dict[str, str]]] = {
    "isc-i": ("isc", {"segmentation_adversarial": "0", "residual_adversarial": "0", "consistency": "0"}),
    "isc-ii": ("isc", {"residual_adversarial": "0", "consistency": "0"}),
    "isc-iii": ("isc", {"segmentation_adversarial": "0", "consistency": "0"}),
    "isc-iv": ("isc", {"consistency": "0"}),
    "isc-v": ("isc", {}),
}
"""Named settings of a method: the ablation of the DA-ISC paper, (i) L_s, (ii) + L_seg, (iii) L_s + L_res, (iv) both,
(v) all."""

NEED_RESIDUAL = frozenset({"isc", "isc-iii", "isc-iv", "isc-v"})
"""Names that need a backbone that predicts the residual of a pair."""


def method_named(name: str) -> tuple[type[Method], dict[str, str]]:
    """Look up a method or a preset; return its class and the settings of the preset.

    Raises
    ------
    InputError
        If there is none; the message lists the known ones.
    """
    base, preset = PRESETS.get(name, (name, {}))
    if base not in METHODS:
        raise InputError(f"there is no method '{name}'; choose one of: {', '.join([*METHODS, *PRESETS])}")
    return METHODS[base], preset


def parse_settings(name: str, assignments: Mapping[str, str]) -> MethodSettings:
    """Parse the settings of a method or preset; `assignments` win over those of the preset.

    Raises
    ------
    InputError
        See `method_named` and `MethodSettings.parse`.
    """
    cls, preset = method_named(name)
    return cls.Settings.parse({**preset, **assignments})


def check_backbone(name: str, backbone: str) -> None:
    """Refuse a backbone that lacks what a method needs.

    Raises
    ------
    InputError
        If the method needs the residual of a pair and the backbone predicts each section on its own.
    """
    if name in NEED_RESIDUAL and not backbone_named(backbone).has_residual:
        pairs = ", ".join(known for known, recipe in BACKBONES.items() if recipe.has_residual)
        raise InputError(
            f"the method '{name}' needs the residual of a pair, which the backbone '{backbone}' does not predict; "
            f"choose one of: {pairs}"
        )


def build_method(
    name: str,
    backbone: str,
    assignments: Mapping[str, str],
    arithmetic: Arithmetic,
    *,
    from_weights: bool = False,
    source_free: bool = False,
    painted: bool = False,
    thickness_nm: float = 0.0,
) -> Method:
    """Build a method with a freshly initialised network on its device.

    Parameters
    ----------
    name : str
        Of a method or a preset.
    backbone : str
        See `models.backbones.BACKBONES`.
    assignments : mapping of str to str
        Settings; see `MethodSettings.parse`.
    from_weights, source_free, painted, thickness_nm
        See `MethodSettings.resolve`.
    """
    check_backbone(name, backbone)
    settings = parse_settings(name, assignments)
    settings = settings.resolve(
        from_weights=from_weights, source_free=source_free, painted=painted, thickness_nm=thickness_nm
    )
    network = build_network(backbone).to(arithmetic.device)
    cls, _ = method_named(name)
    return cls(network, backbone_named(backbone), settings, arithmetic).to(arithmetic.device)
