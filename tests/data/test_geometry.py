"""Physical steps of two domains: pixel, spacing, strides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitoda.data.geometry import LARGEST_SCALE, Geometry, shared_geometry, voxels_in
from mitoda.errors import InputError

VNC, LUCCHI = (50.0, 4.6, 4.6), (5.0, 5.0, 5.0)


def test_vnc3_and_lucchi_work_at_5_nm_and_pair_50_nm_apart():
    """The paper's strides, 1 and 10, follow from the voxel sizes alone."""
    geometry = shared_geometry(VNC, LUCCHI)
    assert geometry == Geometry((5.0, 5.0), 50.0)
    assert geometry.stride(VNC, 20) == 1
    assert geometry.stride(LUCCHI, 165) == 10
    assert geometry.scale(LUCCHI) == (1.0, 1.0)
    assert geometry.scale(VNC) == pytest.approx((5 / 4.6, 5 / 4.6))


def test_pixel_and_spacing_can_be_overruled_and_must_be_lengths():
    """--pixel and --spacing replace what is derived; 0 is refused in the option's words."""
    assert shared_geometry(VNC, LUCCHI, pixel=8, spacing=30) == Geometry((8, 8), 30)
    for option, values in (("--pixel", {"pixel": 0.0}), ("--spacing", {"spacing": -1.0})):
        with pytest.raises(InputError, match=f"{option} must be a positive length"):
            shared_geometry(VNC, LUCCHI, **values)


def test_pixels_within_two_percent_are_not_resampled():
    """5 and 5.09 nm count as equal, 5 and 5.2 do not; one differing axis is enough."""
    geometry = Geometry((5.0, 5.0), 50.0)
    assert geometry.scale((5, 5.09, 5.0)) == (1.0, 1.0)
    assert geometry.scale((5, 5.0, 5.2)) == pytest.approx((1.0, 5 / 5.2))


@given(st.floats(1, 100), st.floats(1, 100), st.integers(1, 300))
def test_a_stride_is_the_spacing_in_sections_and_fits_the_stack(spacing, thickness, sections):
    """At least 1, at most the stack; a single section gets 0, itself."""
    stride = Geometry((5, 5), spacing).stride((thickness, 5, 5), sections)
    assert stride == min(max(1, round(spacing / thickness)), sections - 1)
    assert 0 <= stride < sections


@pytest.mark.parametrize("size", [0.005, 5000.0])
def test_a_voxel_size_in_another_unit_is_refused_and_not_resampled_to_nothing(size):
    """Micrometres or picometres given for nanometres would shrink a section to a pixel, or blow it up a millionfold."""
    with pytest.raises(InputError, match=f"factor above {LARGEST_SCALE:g}; give voxel sizes in nanometres"):
        Geometry((5.0, 5.0), 50.0).scale((5.0, size, size))


def test_a_volume_is_converted_to_whole_voxels():
    """10⁶ nm³ are 1,000 voxels of 10 nm; nothing is no voxel."""
    assert voxels_in(1e6, (10, 10, 10)) == 1000
    assert voxels_in(0.0, (5, 5, 5)) == 0
