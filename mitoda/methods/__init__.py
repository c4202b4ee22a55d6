"""Every system of the paper's table, by the name the command line knows."""

from mitoda.methods.isc import Isc, IscSettings
from mitoda.methods.method import Arithmetic, Method, MethodSettings
from mitoda.methods.registry import METHODS, PRESETS, build_method, method_named
from mitoda.methods.supervised import Oracle, SourceOnly

__all__ = [
    "METHODS",
    "PRESETS",
    "Arithmetic",
    "Isc",
    "IscSettings",
    "Method",
    "MethodSettings",
    "Oracle",
    "SourceOnly",
    "build_method",
    "method_named",
]
