"""Every system of the paper's table, by the name the command line knows."""

from mitoda.methods.adaptsegnet import AdaptSegNet, AdaptSegNetSettings
from mitoda.methods.base import Arithmetic, Method, MethodSettings
from mitoda.methods.da_vsn import DaVsn, DaVsnSettings
from mitoda.methods.damt_net import DamtNet, DamtNetSettings
from mitoda.methods.dann import Dann, DannSettings
from mitoda.methods.isc import Isc, IscSettings
from mitoda.methods.registry import METHODS, PRESETS, build_method, check_backbone, method_named
from mitoda.methods.supervised import Oracle, SourceOnly
from mitoda.methods.ualr import Ualr, UalrSettings
from mitoda.methods.y_net import YNet, YNetSettings

__all__ = [
    "METHODS",
    "PRESETS",
    "AdaptSegNet",
    "AdaptSegNetSettings",
    "Arithmetic",
    "DaVsn",
    "DaVsnSettings",
    "DamtNet",
    "DamtNetSettings",
    "Dann",
    "DannSettings",
    "Isc",
    "IscSettings",
    "Method",
    "MethodSettings",
    "Oracle",
    "SourceOnly",
    "Ualr",
    "UalrSettings",
    "YNet",
    "YNetSettings",
    "build_method",
    "check_backbone",
    "method_named",
]
