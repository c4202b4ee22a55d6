"""Taking up an interrupted stack: nothing whole is lost, nothing broken is taken."""

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mitoda.errors import FileError, InputError
from mitoda.volumes import SectionWriter, open_volume, read_partial, write_sections


class Killed(BaseException):
    """Stands for a signal."""


def write_some(path, stack, count, identity="run-1", sections=None):
    """Write the first sections of a stack, then die."""
    with SectionWriter(path, stack.shape, stack.dtype, (5, 5, 5), identity=identity) as writer:
        for section in stack[:count] if sections is None else sections:
            writer.write(section)
        raise Killed


def resume(path, stack, identity="run-1"):
    """Go on as a command does: what is there first, then the rest; return how many were there."""
    old = read_partial(path, identity, stack.shape, stack.dtype)
    with SectionWriter(path, stack.shape, stack.dtype, (5, 5, 5), identity=identity) as writer:
        for section in old:
            writer.write(section)
        for section in stack[old.count :]:
            writer.write(section)
    return old.count


def read_all(path):
    volume = open_volume(path)
    return np.stack([volume.read(index) for index in range(volume.shape[0])])


@pytest.fixture
def masks(stack):
    """Sections that compress well, as masks do."""
    return (stack > 250).astype(np.uint8) * np.uint8(255)


def test_nothing_left_is_count_0(tmp_path, stack):
    """Resuming what was never begun begins."""
    assert resume(tmp_path / "mask.tif", stack) == 0
    np.testing.assert_array_equal(read_all(tmp_path / "mask.tif"), stack)


@pytest.mark.parametrize("count", [0, 1, 4, 7])
def test_an_interrupted_stack_goes_on_where_it_stopped(count, tmp_path, stack):
    """All sections written are taken up, and the end is as if nothing had happened."""
    path = tmp_path / "mask.tif"
    with pytest.raises(Killed):
        write_some(path, stack, count)
    assert resume(path, stack) == count
    np.testing.assert_array_equal(read_all(path), stack)
    assert open_volume(path).voxel_size == pytest.approx((5, 5, 5))
    assert [file.name for file in tmp_path.iterdir()] == ["mask.tif"]


@pytest.mark.parametrize("kind", ["noise", "masks"])
def test_cut_anywhere_only_whole_sections_are_taken(kind, tmp_path, stack, masks):
    """Whatever byte a killed run ended at, what is read is a run of true sections from the first on."""
    array = {"noise": stack, "masks": masks}[kind]
    path = tmp_path / "mask.tif"
    with pytest.raises(Killed):
        write_some(path, array, 6)
    data = path.with_name("mask.tif.partial").read_bytes()

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, len(data)))
    def check(length):
        for name in ("mask.tif.partial", "mask.tif.partial.previous"):
            path.with_name(name).unlink(missing_ok=True)
        path.with_name("mask.tif.partial").write_bytes(data[:length])
        old = read_partial(path, "run-1", array.shape, array.dtype)
        sections = list(old)
        assert len(sections) == old.count
        assert all(np.array_equal(*pair) for pair in zip(sections, array, strict=False))
        # a page is about 700 bytes of noise or 300 of mask; no more than the last two may be lost
        assert old.count >= 6 * length // len(data) - 2

    check()


def test_damage_in_the_middle_ends_what_is_taken(tmp_path, stack):
    """After a section that does not decompress, none is taken, whole as it may be."""
    path = tmp_path / "mask.tif"
    with pytest.raises(Killed):
        write_some(path, stack, 6)
    partial = path.with_name("mask.tif.partial")
    data = bytearray(partial.read_bytes())
    middle = data.find(stack[3, 10].tobytes()) if stack[3, 10].tobytes() in data else len(data) // 2
    data[middle : middle + 30] = bytes(30)
    partial.write_bytes(data)
    old = read_partial(path, "run-1", stack.shape, stack.dtype)
    assert 0 < old.count < 6
    np.testing.assert_array_equal(list(old), stack[: old.count])


@pytest.mark.parametrize("fed", [0, 2, 4])
def test_dying_again_while_feeding_loses_nothing(fed, tmp_path, stack):
    """A run that dies while it writes the old sections anew leaves them all to the next."""
    path = tmp_path / "mask.tif"
    with pytest.raises(Killed):
        write_some(path, stack, 5)
    old = read_partial(path, "run-1", stack.shape, stack.dtype)
    with pytest.raises(Killed):
        write_some(path, stack, fed, sections=list(old)[:fed])
    assert read_partial(path, "run-1", stack.shape, stack.dtype).count == 5
    # and once more, before anything was written
    assert resume(path, stack) == 5
    np.testing.assert_array_equal(read_all(path), stack)


def test_the_further_of_two_is_kept(tmp_path, stack):
    """Where the second run came further than the first, its sections are taken."""
    path = tmp_path / "mask.tif"
    with pytest.raises(Killed):
        write_some(path, stack, 2)
    old = list(read_partial(path, "run-1", stack.shape, stack.dtype))
    with pytest.raises(Killed):
        write_some(path, stack, 6, sections=[*old, *stack[2:6]])
    assert read_partial(path, "run-1", stack.shape, stack.dtype).count == 6


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"identity": "run-2"}, r"made with other settings or weights \(run run-1, now run-2\)"),
        ({"identity": ""}, r"\(run run-1, now without a name\)"),
        ({"shape": (8, 40, 30)}, r"is for a stack of \(7, 40, 30\) uint8, but this one is \(8, 40, 30\)"),
        ({"shape": (7, 40, 31)}, "is for a stack of"),
        ({"dtype": np.uint16}, "is for a stack of"),
    ],
)
def test_what_another_run_left_is_refused_and_stays(changed, sentence, tmp_path, stack):
    """Other settings, weights or stacks are not mixed, and the files are not moved."""
    path = tmp_path / "mask.tif"
    with pytest.raises(Killed):
        write_some(path, stack, 3)
    before = path.with_name("mask.tif.partial").read_bytes()
    with pytest.raises(InputError, match=sentence):
        read_partial(path, **{"identity": "run-1", "shape": stack.shape, "dtype": np.uint8, **changed})
    assert path.with_name("mask.tif.partial").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_each_iteration_starts_anew_and_a_loss_is_told(tmp_path, stack):
    """The sections can be read twice; if the file shrinks meanwhile, that is an error."""
    path = tmp_path / "mask.tif"
    with pytest.raises(Killed):
        write_some(path, stack, 3)
    old = read_partial(path, "run-1", stack.shape, stack.dtype)
    np.testing.assert_array_equal(list(old), list(old))
    data = old.path.read_bytes()
    old.path.write_bytes(data[: len(data) // 2])
    with pytest.raises(FileError, match="had 3 whole sections and now has 1"):
        list(old)


def test_a_file_of_somebody_else_is_not_taken(tmp_path, stack):
    """A .partial that mitoda did not write is refused and stays."""
    partial = tmp_path / "mask.tif.partial"
    for write in (lambda: partial.write_bytes(bytes(100)), lambda: tifffile.imwrite(partial, stack)):
        write()
        before = partial.read_bytes()
        with pytest.raises(FileError, match=r"is not a TIFF file|was not written by mitoda"):
            read_partial(tmp_path / "mask.tif", "run-1", stack.shape, stack.dtype)
        assert partial.read_bytes() == before


def test_overwrite_starts_again(tmp_path, stack):
    """Without taking it up, what an interrupted run left is replaced only with overwrite."""
    path = tmp_path / "mask.tif"
    with pytest.raises(Killed):
        write_some(path, stack, 3)
    write_sections(path, stack, stack.shape, stack.dtype, None, overwrite=True)
    np.testing.assert_array_equal(read_all(path), stack)
    assert [file.name for file in tmp_path.iterdir()] == ["mask.tif"]
