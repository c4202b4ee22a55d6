"""The one call to the C library: it is made where it can be, and its absence is no error."""

import ctypes
import platform
import sys

import pytest

from mitoda.cli import keep_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_keeps_freed_memory():
    """Both of its parameters are taken."""
    assert keep_freed_memory()


def test_other_systems_and_c_libraries_are_left_alone(monkeypatch):
    """Not Linux, no such library, or one without `mallopt`: the function changes nothing and returns False."""

    def missing(name):
        raise OSError(name)

    for library in (missing, lambda name: object()):
        monkeypatch.setattr(ctypes, "CDLL", library)
        assert not keep_freed_memory()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
