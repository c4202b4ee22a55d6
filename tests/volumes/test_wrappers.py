"""The cache of sections."""

import numpy as np
import pytest

from mitoda.errors import InputError
from mitoda.volumes import ArrayVolume, CachedVolume


class CountedVolume(ArrayVolume):
    """Notes which sections were read."""

    def __init__(self, array):
        super().__init__(array)
        self.reads = []

    def read(self, section, *region):
        self.reads.append((section, *region))
        return super().read(section, *region)


def test_the_longest_unused_section_goes_first(stack):
    """With room for two sections, reading 0 1 0 2 0 1 reads 1 again, but not 0."""
    counted = CountedVolume(stack)
    volume = CachedVolume(counted, limit_bytes=2 * stack[0].nbytes)
    for index in (0, 1, 0, 2, 0, 1):
        np.testing.assert_array_equal(volume.read(index, slice(3, 9)), stack[index, 3:9])
    assert [read[0] for read in counted.reads] == [0, 1, 2, 1]


def test_a_section_beyond_the_limit_is_read_in_parts(stack):
    """What cannot be kept is passed on as it is, region and all."""
    counted = CountedVolume(stack)
    volume = CachedVolume(counted, limit_bytes=10)
    assert volume.read(2, slice(0, 2), slice(0, 3)).shape == (2, 3)
    assert counted.reads == [(2, slice(0, 2), slice(0, 3))]


def test_writing_into_a_region_does_not_reach_the_cache(stack):
    """A caller may change what it got."""
    volume = CachedVolume(ArrayVolume(stack.copy()))
    volume.read(0)[:] = 0
    np.testing.assert_array_equal(volume.read(0), stack[0])


def test_negative_limits_are_refused(stack):
    """The limit is a size."""
    with pytest.raises(InputError, match="-1 bytes"):
        CachedVolume(ArrayVolume(stack), limit_bytes=-1)
