"""From a volume to files: what is in them, what is refused, and interrupted runs that go on."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

from mitoda.errors import FileError, InputError
from mitoda.inference import segment as segmentation
from mitoda.inference.checks import contrast_looks_inverted
from mitoda.inference.events import AlreadyComplete, Notice, Numbered, SectionDone, Segmented
from mitoda.inference.segment import predict_masks, segment
from mitoda.inference.settings import MaskSettings, Resolved, SegmentSettings, resolve
from mitoda.inference.streaming import predict
from mitoda.inference.voxel_size import VoxelSizeFound
from mitoda.models.model import Model
from mitoda.models.weights import ThinSections, WeightsInfo
from mitoda.volumes import ArrayVolume, open_labels, open_volume
from mitoda.volumes.volume import stated_lengths
from tests.fakes import BrokenVolume, CountingVolume, LocalNetwork, model_of

SIZE = (10.0, 5.0, 5.0)
THROUGH = np.zeros((3, 3, 3), bool)
THROUGH[1] = True
THROUGH[:, 1, 1] = True


def local(network=None) -> Model:
    """The fake network for 5 nm pixels and pairs 20 nm apart."""
    return model_of(network or LocalNetwork(), (5.0, 5.0), 20.0)


def volume_of(sections: int = 8, seed: int = 0) -> ArrayVolume:
    """Smooth noise, so that thresholds give blobs."""
    noise = np.random.default_rng(seed).normal(size=(sections, 20, 30))
    smooth = ndimage.gaussian_filter(noise, (0.5, 1.5, 1.5))
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * 255
    return ArrayVolume(smooth.astype(np.uint8), SIZE, "noise")


def run(volume, tmp_path, network=None, **changes):
    """Segment; return all events."""
    settings = SegmentSettings(output=tmp_path / "mask.tif", **changes)
    first, *events = segment(volume, local(network), settings)
    assert isinstance(first, Resolved)
    return events


def read(path) -> np.ndarray:
    """A whole file."""
    volume = open_volume(path)
    return np.stack([volume.read(k) for k in range(volume.shape[0])])


def test_mask_and_probability_are_those_of_the_network_with_the_voxel_size(tmp_path):
    """uint8, 0 and 255, and probability × 255; both say how large a voxel is; events count what was found."""
    volume = volume_of()
    events = run(volume, tmp_path, probability=tmp_path / "p.tif", threshold=0.6)
    plain = np.stack(list(predict(volume, local())))
    assert np.array_equal(read(tmp_path / "mask.tif"), np.where(plain >= 0.6, 255, 0))
    assert np.abs(read(tmp_path / "p.tif") - plain * 255).max() <= 0.5 + 1e-4
    for name in ("mask.tif", "p.tif"):
        assert open_volume(tmp_path / name).voxel_size == pytest.approx(SIZE)
    done = events[-1]
    assert isinstance(done, Segmented)
    assert [event.section for event in events[:-1]] == list(range(8))
    assert done.foreground == pytest.approx((plain >= 0.6).mean())
    assert done.stride == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.tif", "p.tif"]


def test_the_value_of_foreground_can_be_chosen(tmp_path):
    """--mask-value 1 for learning tools, small components dropped or not."""
    for minimum in (0, 5):
        run(volume_of(), tmp_path, mask_value=1, min_size=minimum, overwrite=True)
        assert set(np.unique(read(tmp_path / "mask.tif"))) == {0, 1}


@pytest.mark.parametrize("minimum", [2, 30, 200])
def test_small_components_are_dropped_through_sections(tmp_path, minimum):
    """The file equals scipy's labelling of the whole mask in three dimensions."""
    volume = volume_of(seed=minimum)
    run(volume, tmp_path)
    mask = read(tmp_path / "mask.tif")
    labels, _ = ndimage.label(mask, THROUGH)
    sizes = np.bincount(labels.ravel())
    events = run(volume, tmp_path, min_size=minimum, overwrite=True)
    expected = np.where((sizes >= minimum)[labels], mask, 0)
    assert np.array_equal(read(tmp_path / "mask.tif"), expected)
    assert events[-1].foreground == pytest.approx((expected > 0).mean())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.tif"]


def interrupted(volume, tmp_path, after: int, **changes) -> None:
    """Segment, and stop as Ctrl-C does once so many sections are reported."""
    settings = SegmentSettings(output=tmp_path / "mask.tif", **changes)
    events = segment(volume, local(), settings)
    for _ in range(1 + after):
        next(events)
    events.close()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_size": 12},
        {"probability": True},
        {"snap": True},
        {"probability": True, "min_size": 12, "snap": True},
    ],
)
def test_an_interrupted_run_goes_on_where_it_was(tmp_path, options):
    """The files equal those of an uninterrupted run; what was done is not computed again, and no file is left over."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    volume = volume_of(12)

    def changes(folder):
        return {**options, "probability": folder / "p.tif"} if "probability" in options else options

    run(volume, tmp_path / "whole", **changes(tmp_path / "whole"))
    parts = tmp_path / "parts"
    interrupted(volume, parts, 7, **changes(parts))
    assert not (parts / "mask.tif").exists()
    counting = CountingVolume(volume)
    events = run(counting, parts, resume=True, **changes(parts))
    assert [event.resumed for event in events[:-1]][:7] == [True] * 7
    assert [event.section for event in events[:-1]] == list(range(12))
    # Beside the identity's first and last section and the contrast's middle one: from 7 − stride on to predict, and
    # the others once to look for padding; every one where grey values on contours are read.
    looked_at = range(12) if "snap" in options else range(5)
    assert sorted(counting.sections) == sorted([0, 11, *range(5, 12), 6, *looked_at])
    for path in (tmp_path / "whole").iterdir():
        assert np.array_equal(read(path), read(parts / path.name))
    assert sorted(p.name for p in parts.iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert events[-1].foreground == pytest.approx((read(parts / "mask.tif") > 0).mean())


def test_an_error_in_the_middle_loses_nothing(tmp_path):
    """Section 9 cannot be read; mended, the run goes on and equals one without the error."""
    volume = volume_of(12)
    with pytest.raises(OSError, match="section 9"):
        run(BrokenVolume(volume, 9), tmp_path)
    assert (tmp_path / "mask.tif.partial").exists()
    events = run(volume, tmp_path, resume=True)
    resumed = sum(event.resumed for event in events if isinstance(event, SectionDone))
    assert resumed >= 5
    mask = read(tmp_path / "mask.tif")
    run(volume, tmp_path, overwrite=True)
    assert np.array_equal(read(tmp_path / "mask.tif"), mask)


@pytest.mark.parametrize("snap", [False, True])
def test_where_no_membrane_stands_out_that_is_said(snap, tmp_path):
    """A warning says so, because the weights or the person chose snapping."""
    done = run(volume_of(), tmp_path, snap=snap)[-1]
    assert isinstance(done, Segmented)
    assert any("no dark membrane stands out" in warning for warning in done.warnings) == snap


@pytest.mark.parametrize("snap", [False, True])
def test_a_run_that_dies_in_its_second_pass_only_repeats_that(snap, tmp_path, monkeypatch):
    """The network does not run again: the first pass is complete; the result is the same."""
    volume = volume_of(10)
    p = tmp_path / "p.tif"
    run(volume, tmp_path, min_size=12, snap=snap, probability=p)
    expected, levels = read(tmp_path / "mask.tif"), read(p)
    calls = 0
    original = segmentation.MaskFinalizer.finalize

    def die(self, section, waiting):
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return original(self, section, waiting)

    monkeypatch.setattr(segmentation.MaskFinalizer, "finalize", die)
    with pytest.raises(KeyboardInterrupt):
        run(volume, tmp_path, min_size=12, snap=snap, probability=p, overwrite=True)
    monkeypatch.setattr(segmentation.MaskFinalizer, "finalize", original)
    (tmp_path / "mask.tif").unlink()

    with pytest.raises(FileError, match="exists; give another name, or --overwrite"):
        run(volume, tmp_path, min_size=12, snap=snap, probability=p)
    with pytest.raises(FileError, match="left from an interrupted run; give --resume"):
        run(volume, tmp_path, min_size=12, snap=snap)

    class Forbidden(LocalNetwork):
        def encode(self, section):
            raise AssertionError("computed again")

    events = run(volume, tmp_path, Forbidden(), min_size=12, snap=snap, probability=p, resume=True)
    assert all(event.resumed for event in events[:-1])
    assert np.array_equal(read(tmp_path / "mask.tif"), expected)
    assert np.array_equal(read(p), levels)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.tif", "p.tif"]


def test_an_interrupted_run_is_not_resumed_with_a_minimum_size_it_did_not_have(tmp_path):
    """What was done would be lost: it is refused before any work."""
    volume = volume_of()
    interrupted(volume, tmp_path, 4)
    with pytest.raises(FileError, match="left from a run without --min-size"):
        run(volume, tmp_path, resume=True, min_size=9)
    with pytest.raises(FileError, match="left from an interrupted run; give --resume"):
        run(volume, tmp_path, min_size=9)
    assert (tmp_path / "mask.tif.partial").exists()


@pytest.mark.parametrize("change", ["threshold", "weights", "volume", "inverted", "tile"])
def test_a_run_is_resumed_only_as_what_it_was(tmp_path, change):
    """Other settings, weights, pixels or contrast are refused, and what is there stays."""
    volume = volume_of()
    network, changes = LocalNetwork(), {}
    interrupted(volume, tmp_path, 4)
    if change == "threshold":
        changes["threshold"] = 0.7
    elif change == "weights":
        network.register_buffer("weights", torch.ones(1))
    elif change == "volume":
        volume = volume_of(seed=1)
    elif change == "inverted":
        volume = open_volume(volume.array, voxel_size=SIZE, invert=True)
    else:
        changes["tile"] = (16, 16)
    before = (tmp_path / "mask.tif.partial").read_bytes()
    with pytest.raises(InputError, match="other settings or weights"):
        run(volume, tmp_path, network, resume=True, **changes)
    assert (tmp_path / "mask.tif.partial").read_bytes() == before


@pytest.mark.parametrize("options", [{}, {"min_size": 12}, {"snap": True}])
def test_resuming_a_complete_run_says_so_and_computes_nothing(tmp_path, options):
    """Also where the run was killed right before its first pass was deleted; with other settings it is refused."""
    volume, p = volume_of(), tmp_path / "p.tif"
    run(volume, tmp_path, probability=p, **options)
    before = (tmp_path / "mask.tif").read_bytes()

    class Forbidden(LocalNetwork):
        def encode(self, section):
            raise AssertionError("computed again")

    (event,) = run(volume, tmp_path, Forbidden(), probability=p, resume=True, **options)
    assert event == AlreadyComplete(tmp_path / "mask.tif")
    assert (tmp_path / "mask.tif").read_bytes() == before
    with pytest.raises(FileError, match="exists; give another name, or --overwrite"):
        run(volume, tmp_path, probability=p, resume=True, **options, threshold=0.7)
    with pytest.raises(FileError, match="exists; give another name, or --overwrite"):
        run(volume, tmp_path, probability=p, resume=True, **{**options, "min_size": 13})


@pytest.mark.parametrize("options", [{}, {"min_size": 12}])
def test_a_run_killed_between_its_two_files_is_finished(tmp_path, monkeypatch, options):
    """The probability map has its name, the mask not yet: nothing is computed again."""
    volume, p = volume_of(), tmp_path / "p.tif"
    run(volume, tmp_path, probability=p, **options)
    expected = read(tmp_path / "mask.tif")
    (tmp_path / "mask.tif").unlink()
    p.unlink()
    original = segmentation.SectionWriter.__exit__

    def die(self, kind, error, traceback):
        if self.path != p:
            original(self, KeyboardInterrupt, None, None)  # closes the file
            raise KeyboardInterrupt
        return original(self, kind, error, traceback)

    with monkeypatch.context() as dying:
        dying.setattr(segmentation.SectionWriter, "__exit__", die)
        with pytest.raises(KeyboardInterrupt):
            run(volume, tmp_path, probability=p, **options)
    assert p.exists()
    assert not (tmp_path / "mask.tif").exists()
    events = run(volume, tmp_path, probability=p, resume=True, **options)
    assert sum(event.resumed for event in events if isinstance(event, SectionDone)) >= 7
    assert np.array_equal(read(tmp_path / "mask.tif"), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mask.tif", "p.tif"]


def test_masks_without_files_are_those_of_the_files(tmp_path):
    """Section by section, with all that the end of the stack decides; probabilities are observed in order."""
    volume, seen = volume_of(), []
    settings = MaskSettings(threshold=0.6, min_size=12, snap=True)
    masks = list(
        predict_masks(volume, local(), settings, observe=lambda section, p: seen.append((section, p)))
    )
    run(volume, tmp_path, threshold=0.6, min_size=12, snap=True)
    assert np.array_equal(np.stack(masks), read(tmp_path / "mask.tif") > 0)
    assert [section for section, _ in seen] == list(range(8))
    assert all(np.array_equal(p, q) for (_, p), q in zip(seen, predict(volume, local()), strict=True))


def test_what_is_not_given_is_taken_from_the_weights():
    """Threshold, size in voxels of this stack, snapping and smoothing; what is given counts."""
    info = WeightsInfo("compact", (5.0, 5.0), 20.0, threshold=0.7, smoothing=15.0, smallest=5000.0, snap=True)
    assert resolve(MaskSettings(), info, (10.0, 5.0, 5.0)) == Resolved(0.7, 20, True, 15.0)
    given = MaskSettings(threshold=0.4, min_size=0, snap=False, smoothing=0.0)
    assert resolve(given, info, (10.0, 5.0, 5.0)) == Resolved(0.4, 0, False, 0.0)
    thin = replace(info, snap=False, thin=ThinSections(0.5, snap=True))
    for thickness, threshold, snap in ((20.0, 0.5, True), (20.1, 0.7, False)):
        resolved = resolve(MaskSettings(), thin, (thickness, 5.0, 5.0))
        assert (resolved.threshold, resolved.snap) == (threshold, snap)


def test_an_estimated_voxel_size_is_used_and_not_written(tmp_path, monkeypatch):
    """The first event tells it; the mask claims no calibration."""
    volume = ArrayVolume(volume_of().array, None, "bare")
    found = VoxelSizeFound(SIZE, [])
    monkeypatch.setattr(segmentation, "search_voxel_size", lambda volume, model: found)
    first, _, *events = segment(volume, local(), SegmentSettings(output=tmp_path / "mask.tif"))
    assert first == found
    assert events[-1].stride == 2
    assert volume.voxel_size is None
    assert open_volume(tmp_path / "mask.tif").voxel_size is None


def test_resuming_and_overwriting_together_go_on(tmp_path):
    """--overwrite replaces a finished mask; --resume takes what the interrupted run has: both are honoured."""
    volume = volume_of()
    (tmp_path / "mask.tif").write_bytes(b"an older mask")
    interrupted(volume, tmp_path, 5, overwrite=True)
    assert (tmp_path / "mask.tif").read_bytes() == b"an older mask"
    events = run(volume, tmp_path, resume=True, overwrite=True)
    assert sum(event.resumed for event in events[:-1]) >= 5
    assert read(tmp_path / "mask.tif").shape == volume.shape


def test_what_is_in_the_way_is_refused_before_any_work(tmp_path):
    """An existing mask, a partial one, a folder, a missing folder, another format: nothing is read."""
    volume = CountingVolume(volume_of())
    (tmp_path / "mask.tif").write_bytes(b"precious")
    with pytest.raises(FileError, match=r"mask.tif exists; give another name, or --overwrite"):
        run(volume, tmp_path)
    assert (tmp_path / "mask.tif").read_bytes() == b"precious"
    (tmp_path / "mask.tif").unlink()
    (tmp_path / "mask.tif").mkdir()
    with pytest.raises(FileError, match="is a folder; give the name of a file"):
        run(volume, tmp_path)
    with pytest.raises(FileError, match="does not exist; create it first: mkdir -p"):
        run(volume, tmp_path / "gone")
    with pytest.raises(InputError, match=r"p.png must end in .tif"):
        run(volume, tmp_path / "mask.tif", probability=tmp_path / "p.png")
    assert volume.sections == []
    interrupted(volume_of(), tmp_path / "mask.tif", 3)
    with pytest.raises(FileError, match=r"left from an interrupted run; give --resume"):
        run(volume_of(), tmp_path / "mask.tif")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 2.0}, "threshold must lie between 0 and 1; got 2.0"),
        ({"threshold": float("nan")}, "threshold"),
        ({"min_size": -1}, "min_size must be from 0 to"),
        ({"mask_value": 256}, "mask_value must be from 1 to 255"),
        ({"mask_value": 0}, "mask_value"),
    ],
)
def test_settings_are_refused_in_the_words_of_the_options(tmp_path, changes, message):
    """With the value that was given."""
    with pytest.raises(InputError, match=message):
        SegmentSettings(output=tmp_path / "mask.tif", **changes)
    with pytest.raises(InputError, match="cannot both be written"):
        SegmentSettings(output=tmp_path / "mask.tif", probability=tmp_path / "x" / ".." / "mask.tif")


def test_an_empty_mask_is_said_aloud(tmp_path):
    """No pixel above 0.999, or every component too small: two different warnings."""
    warnings = " ".join(run(volume_of(), tmp_path, threshold=0.99999)[-1].warnings)
    assert "the mask is empty: no pixel reached the threshold" in warnings
    warnings = " ".join(run(volume_of(), tmp_path, min_size=10**6, overwrite=True)[-1].warnings)
    assert "every component is smaller than --min-size" in warnings


def test_odd_stacks_work_and_are_remarked_upon(tmp_path):
    """One section, a constant one, sections too thick, or too few to be apart as they should."""

    def warned(array, size=SIZE):
        volume = ArrayVolume(array, size, "odd")
        return " ".join(run(volume, tmp_path, overwrite=True)[-1].warnings)

    noise = volume_of(10).array
    assert "paired with itself" in warned(noise[:1])
    assert "constant (all its pixels are 9): its mask is 0" in warned(np.full((3, 20, 20), 9, np.uint8))
    assert not read(tmp_path / "mask.tif").any()
    assert "pair are 60 nm apart here and were 20 nm" in warned(noise, (60.0, 5.0, 5.0))
    assert "apart" not in warned(noise)


@pytest.mark.parametrize("shape", [(1, 40), (3, 40), (40, 1), (2, 2)])
def test_sections_narrower_than_a_cell_can_be_snapped(tmp_path, shape):
    """Cells of the snapping have 4 × 4 pixels of 5 nm; a section may have less."""
    volume = ArrayVolume(
        np.random.default_rng(0).integers(0, 255, (3, *shape), np.uint8), (5.0, 5.0, 5.0), "narrow"
    )
    run(volume, tmp_path, snap=True, min_size=2, threshold=0.01)
    assert read(tmp_path / "mask.tif").shape == (3, *shape)


@pytest.mark.parametrize("changes", [{}, {"snap": True, "min_size": 2}, {"boundary": 10.0}])
def test_padding_is_background_and_is_reported(tmp_path, changes):
    """Mask and probability are 0 in a frame, also where boundaries move; its share and a lost section are named."""
    grey = volume_of().array
    padded = np.pad(grey, ((0, 0), (8, 8), (8, 8)))
    padded[5] = 7
    inside = np.pad(np.ones(grey.shape, bool), ((0, 0), (8, 8), (8, 8)))
    inside[5] = inside[4]  # a lost section is predicted like the nearest one
    volume = ArrayVolume(padded, SIZE, "padded")
    done = run(volume, tmp_path, probability=tmp_path / "p.tif", threshold=0.3, **changes)[-1]
    for name in ("mask.tif", "p.tif"):
        written = read(tmp_path / name)
        assert not written[~inside].any()
        assert written[inside].any()
    settings = MaskSettings(threshold=0.3, **changes)
    masks = np.stack(list(predict_masks(volume, local(), settings)))
    assert np.array_equal(masks, read(tmp_path / "mask.tif") > 0)
    warnings = " ".join(done.warnings)
    assert "section 5 is constant (all its pixels are 7): its mask is that of the nearest section" in warnings
    share = np.delete(~inside, 5, axis=0).sum() / inside.size
    assert f"{share:.0%} of the stack is padding" in warnings


def test_inverted_contrast_is_noticed_on_phantoms_and_only_there(source_phantom, target_phantom):
    """Both drawn microscopes as they are, and inverted; a constant section is neither."""
    for image, _ in (source_phantom, target_phantom):
        for k in (0, image.shape[0] // 2):
            section, pixel = image.read(k), image.voxel_size[1]
            assert not contrast_looks_inverted(section, pixel)
            assert contrast_looks_inverted(255 - section, pixel)
    assert not contrast_looks_inverted(np.full((30, 30), 9, np.uint8), 5.0)


def test_inverted_contrast_is_noticed_on_real_sections(real_data):
    """VNC III and Lucchi."""
    for name, pixel in (("vnc3", 4.6), ("lucchi", 5.0)):
        path = next(
            p
            for p in sorted((real_data / name).rglob("*.tif*"))
            if "mask" not in str(p) and "label" not in str(p)
        )
        section = open_volume(path).read(0)
        assert not contrast_looks_inverted(section, pixel)
        assert contrast_looks_inverted(255 - section, pixel)


def test_masks_read_back_as_labels(tmp_path):
    """What was written scores as what it is: 0 and 1."""
    run(volume_of(), tmp_path)
    labels = open_labels(tmp_path / "mask.tif")
    assert set(np.unique(labels.read(3))) <= {0, 1}


def test_instances_are_those_of_the_mask_that_is_written(tmp_path):
    """The labels cover the mask, a resumed run keeps them, and a file in the way is refused before any work."""
    volume = volume_of()
    settings = SegmentSettings(threshold=0.5, output=tmp_path / "mask.tif", instances=tmp_path / "labels.tif")
    events = list(segment(volume, local(), settings))
    (numbered,) = [event for event in events if isinstance(event, Numbered)]
    mask, labels = (tifffile.imread(tmp_path / name) for name in ("mask.tif", "labels.tif"))
    np.testing.assert_array_equal(labels > 0, mask > 0)
    assert numbered.count == labels.max() > 0
    again = list(segment(volume, local(), replace(settings, resume=True)))
    assert isinstance(again[-1], AlreadyComplete)
    (tmp_path / "mask.tif").unlink()
    with pytest.raises(FileError, match=r"labels\.tif exists"):
        next(segment(volume, local(), settings))


def test_pixels_that_are_not_square_are_told_before_the_first_section(tmp_path):
    """X Y Z given for Z Y X; 5 × 4.6 nm are square enough."""
    for size, told in (((5.0, 5.0, 50.0), True), ((50.0, 5.0, 4.6), False)):
        volume = volume_of()
        volume.voxel_size = size
        settings = SegmentSettings(output=tmp_path / "mask.tif", overwrite=True)
        first = next(segment(volume, model_of(LocalNetwork(), size[1:], 20.0), settings))
        assert isinstance(first, Notice) == told
        if told:
            assert "pixels are 5 × 50 nm" in first.text
            assert "Z Y X" in first.text


def test_what_is_known_of_the_voxel_size_is_written_and_the_estimate_is_not(tmp_path, monkeypatch):
    """Stated pixels of 5 × 5 nm are in the mask; the thickness found from the images is not."""
    volume = volume_of()
    volume.voxel_size, volume.stated = None, (None, 5.0, 5.0)
    events = list(segment(volume, local(), SegmentSettings(output=tmp_path / "mask.tif")))
    assert isinstance(events[0], VoxelSizeFound)
    assert stated_lengths(open_volume(tmp_path / "mask.tif")) == pytest.approx((None, 5.0, 5.0))


@pytest.mark.parametrize("content", [b"notes", b"II*\x00" + b"a thesis" * 200])
@pytest.mark.parametrize("flag", ["resume", "overwrite"])
@pytest.mark.parametrize("name", ["mask.tif.partial", "mask.tif.partial.previous", "p.tif.partial"])
def test_a_file_of_others_with_a_partial_name_stays(tmp_path, content, flag, name):
    """Neither continued, nor removed, nor written over."""
    (tmp_path / name).write_bytes(content)
    for options in ({}, {"min_size": 12}):
        with pytest.raises(FileError, match=f"{name} was not written by mitoda; move it away"):
            run(volume_of(), tmp_path, probability=tmp_path / "p.tif", **{flag: True}, **options)
        assert (tmp_path / name).read_bytes() == content
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError, match=f"{name} is a link"):
        run(volume_of(), tmp_path, probability=tmp_path / "p.tif", **{flag: True})


def test_a_name_too_long_for_its_partial_files_is_refused_before_any_work(tmp_path):
    """Not after the last section."""
    with pytest.raises(InputError, match="is too long; give one of at most 200 bytes"):
        next(segment(volume_of(), local(), SegmentSettings(output=tmp_path / f"{'m' * 240}.tif")))


def test_sections_encoded_tile_by_tile_give_the_same_probabilities(monkeypatch):
    """As for sections too large to keep their features: paired with a neighbour, and with itself."""
    from mitoda.inference import predictor

    settings = MaskSettings(tile=(16, 16), overlap=8, flips=True)
    for sections in (1, 5):
        volume = volume_of(sections)
        whole = list(predict(volume, local(), settings))
        with monkeypatch.context() as large:
            large.setattr(predictor, "LARGE", 0)
            parts = list(predict(volume, local(), settings))
        assert np.allclose(whole, parts, atol=1e-3)  # large sections wait in half precision
