"""What a training step sees: labels follow images, targets have none, and threads decide nothing."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mitoda.data.augmentation import AUGMENTATIONS, draw_window
from mitoda.data.pairs import LabelledPairs, PseudoLabels, UnlabelledBatch, UnlabelledPairs, Wanted
from mitoda.data.sampling import BatchSettings, BatchStream, read_batch, seeded, warp_batch
from mitoda.inference.self_consistency import foreground_share
from mitoda.volumes import ArrayVolume
from tests.fakes import CountingVolume, UnreadableVolume

CPU = torch.device("cpu")


def blobs(sections: int = 5, side: int = 60, seed: int = 0) -> np.ndarray:
    """Sections of 0 and 1 in coarse blocks."""
    coarse = np.random.default_rng(seed).integers(0, 2, (sections, side // 6, side // 6), dtype=np.uint8)
    return coarse.repeat(6, 1).repeat(6, 2)


def pairs_of(array: np.ndarray, stride: int = 1, scale: tuple[float, float] = (1.0, 1.0)) -> LabelledPairs:
    """A source whose labels are its images."""
    return LabelledPairs(ArrayVolume(array), stride, scale, labels=ArrayVolume(array))


def settings(name: str = "strong", matching: float = 0.5, seed: int = 3, side: int = 32) -> BatchSettings:
    """Of small batches."""
    return BatchSettings(2, side, AUGMENTATIONS[name], "standard", matching, seed)


def both(step: int) -> Wanted:
    """Every step uses both domains."""
    return Wanted(source=True, target=True)


def target_only(step: int) -> Wanted:
    """No step uses the source."""
    return Wanted(source=False, target=True)


def stream(
    workers: int = 2, target: bool = True, wants: Callable[[int], Wanted] = both, **changes: object
) -> BatchStream:
    """A stream of two volumes of noise."""
    noise = np.random.default_rng(1).integers(0, 256, (6, 60, 60), dtype=np.uint8)
    source = LabelledPairs(ArrayVolume(noise), 1, labels=ArrayVolume(blobs(6)))
    return BatchStream(
        source,
        UnlabelledPairs(ArrayVolume(255 - noise), 2) if target else None,
        settings(**changes),
        CPU,
        wants,
        workers,
    )


def test_several_sources_teach_equally_often():
    """Of two sources, dark and bright, half the pairs are of each, whatever their size; one alone draws as before."""
    dark, bright = (np.full((sections, 60, 60), value, np.uint8) for sections, value in ((3, 10), (40, 200)))
    both = replace(pairs_of(dark), others=(pairs_of(bright),))
    draw = read_batch(both, 200, 32, AUGMENTATIONS["none"], seeded(0))
    share = np.mean([crop.images.max() == 200 for crop in draw.crops])
    assert 0.4 < share < 0.6
    again = read_batch(both, 200, 32, AUGMENTATIONS["none"], seeded(0))
    assert all(np.array_equal(a.images, b.images) for a, b in zip(draw.crops, again.crops, strict=True))
    assert foreground_share(both) == 1.0


def take(batches: BatchStream, start: int, count: int) -> list:
    """The batches of a few steps."""
    with batches:
        return [batches.batch(start + number) for number in range(count)]


@pytest.mark.parametrize("name", ["strong", "paper", "none"])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (1.7, 1.2), (0.4, 0.4)])
def test_labels_follow_images(name, scale):
    """An image that is its own label stays so through every rotation, zoom, displacement and resampling."""
    pairs = pairs_of(blobs(), stride=2, scale=scale)
    for step in range(5):
        draw = read_batch(pairs, 3, 32, AUGMENTATIONS[name], seeded(step))
        images, coverage, _ = warp_batch(draw, AUGMENTATIONS[name], CPU)
        assert images.shape == (3, 2, 32, 32)
        assert torch.allclose(images, coverage, atol=1e-5)


def test_both_sections_are_cut_at_the_same_place():
    """Equal sections give equal patches, whatever is drawn: the pair shares one window."""
    section = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    pairs = pairs_of(np.stack([section] * 4), stride=3)
    for name in AUGMENTATIONS:
        images, _, _ = warp_batch(
            read_batch(pairs, 4, 32, AUGMENTATIONS[name], seeded(2)), AUGMENTATIONS[name], CPU
        )
        assert torch.equal(images[:, 0], images[:, 1])


def test_the_two_sections_are_a_stride_apart():
    """Sections that hold their own number tell which were read; all pairs are drawn in time."""
    numbers = np.arange(7, dtype=np.uint8)[:, None, None].repeat(40, 1).repeat(40, 2)
    draw = read_batch(pairs_of(numbers, stride=3), 60, 16, AUGMENTATIONS["none"], seeded(0))
    images, _, _ = warp_batch(draw, AUGMENTATIONS["none"], CPU)
    first, second = images[:, 0, 0, 0], images[:, 1, 0, 0]
    assert torch.allclose(second - first, torch.full((60,), 3.0), atol=1e-4)
    assert set(first.round().tolist()) == {0.0, 1.0, 2.0, 3.0}


def test_target_batches_have_no_field_for_labels():
    """What reaches a method holds images, and pseudo labels where the method made some: here none."""
    assert {field.name for field in fields(UnlabelledBatch)} <= {"images", "pseudo_labels"}
    (source, target), *_ = take(stream(), 0, 1)
    assert [name for name, value in vars(target).items() if value is not None] == ["images"]
    assert source.coverage.unique().numel() >= 2


def labelled_slab(sections: range, side: int) -> PseudoLabels:
    """Pseudo labels without a mitochondrion."""
    return PseudoLabels(np.zeros((len(sections), side, side), np.uint8), sections.start, (1.0, 1.0), 0.3, 0.6)


def test_a_target_that_is_labelled_in_part_is_drawn_from_there():
    """No step is spent on sections without pseudo labels, and each round has its own slab."""
    volume = CountingVolume(ArrayVolume(np.zeros((40, 40, 40), np.uint8)))
    for slab in (range(10, 14), range(31, 36)):
        volume.sections.clear()
        with BatchStream(None, UnlabelledPairs(volume, 2), settings(), CPU, target_only) as batches:
            for step in range(20):
                _, target = batches.batch(step, labelled_slab(slab, 40))
                assert (target.pseudo_labels == 0).all()
        assert set(volume.sections) == set(slab)


def test_labels_of_all_sections_change_no_draw():
    """The images are those of a step without pseudo labels."""
    with stream() as batches, stream() as labelled:
        for step in range(3):
            _, without = batches.batch(step)
            _, target = labelled.batch(step, labelled_slab(range(6), 60))
            assert torch.equal(target.images, without.images)
            assert (target.pseudo_labels == 0).all()


def test_labels_of_a_target_are_never_read():
    """Even pairs that have labels, given as a target's type, cannot hand them on; nor is the source's target read."""
    noise = ArrayVolume(np.random.default_rng(1).integers(0, 256, (6, 60, 60), dtype=np.uint8))
    draw = read_batch(UnlabelledPairs(noise, 1), 2, 32, AUGMENTATIONS["strong"], seeded(0))
    assert all(crop.labels is None for crop in draw.crops)
    with pytest.raises(TypeError):
        UnlabelledPairs(noise, 1, labels=UnreadableVolume(noise))  # type: ignore[call-arg]


def test_a_batch_depends_on_seed_and_step_alone():
    """One thread or four, from the start or from the middle: step 5 is step 5; another seed is another."""
    whole = take(stream(workers=1), 0, 7)
    later = take(stream(workers=4), 5, 2)
    for (a, b), (c, d) in zip(whole[5:], later, strict=True):
        assert torch.equal(a.images, c.images)
        assert torch.equal(a.coverage, c.coverage)
        assert torch.equal(b.images, d.images)
    other = take(stream(seed=4), 5, 1)
    assert not torch.equal(whole[5][0].images, other[0][0].images)


def test_the_source_is_the_same_with_and_without_a_target():
    """Ablations see the same patches: the target takes no random number from the source."""
    (with_target, _), *_ = take(stream(matching=0.0), 2, 1)
    (alone, nothing), *_ = take(stream(matching=0.0, target=False), 2, 1)
    assert nothing is None
    assert torch.equal(with_target.images, alone.images)
    assert torch.equal(with_target.coverage, alone.coverage)


def test_a_domain_that_a_step_does_not_use_makes_no_batch():
    """The other domain's batch is unchanged; a source that takes the target's grey values still does."""
    source, target = take(stream(matching=1.0), 0, 1)[0]

    def source_only(step: int) -> Wanted:
        return Wanted(source=True, target=False)

    nothing, same = take(stream(matching=1.0, wants=target_only), 0, 1)[0]
    assert nothing is None
    assert torch.equal(target.images, same.images)
    matched, nothing = take(stream(matching=1.0, wants=source_only), 0, 1)[0]
    assert nothing is None
    assert torch.equal(matched.images, source.images)


def test_a_domain_that_no_step_uses_is_never_read():
    """Whatever is read ahead: the source of a run that uses the target alone, and the other way round."""
    volume = ArrayVolume(np.zeros((3, 40, 40), np.uint8))
    forbidden = UnreadableVolume(volume)
    source, target = LabelledPairs(volume, 1, labels=volume), UnlabelledPairs(volume, 1)
    no_source, no_target = LabelledPairs(forbidden, 1, labels=forbidden), UnlabelledPairs(forbidden, 1)
    for first, second, wanted in (
        (no_source, target, Wanted(source=False, target=True)),
        (source, no_target, Wanted(source=True, target=False)),
    ):
        batches = BatchStream(first, second, settings(matching=0.0), CPU, lambda step, wanted=wanted: wanted)
        assert len(take(batches, 0, 3)) == 3


def test_a_wrong_guess_about_a_coming_step_changes_no_batch():
    """What was not read ahead is read then, and what is not used after all is left out."""
    expected = take(stream(), 3, 1)[0]
    known = 0

    def late(step: int) -> Wanted:
        return Wanted(source=True, target=True) if known >= 3 else Wanted(source=False, target=known == 2)

    with stream(wants=late) as batches:
        for known in range(3):
            batches.batch(known)
        known = 3
        source, target = batches.batch(3)
    assert torch.equal(source.images, expected[0].images)
    assert torch.equal(target.images, expected[1].images)


def test_no_more_is_read_than_a_patch_needs():
    """A patch of 16 pixels of a section of 400 reads a bounding box, not the section."""
    big = np.zeros((2, 400, 400), np.uint8)
    window = draw_window(AUGMENTATIONS["none"], seeded(0), 16, (400, 400), (1.0, 1.0))
    rows, columns = window.bounds((400, 400))
    assert max(rows.stop - rows.start, columns.stop - columns.start) <= 16 + 2 * 12
    draw = read_batch(pairs_of(big), 1, 16, AUGMENTATIONS["none"], seeded(0))
    assert max(draw.crops[0].images.shape[1:]) <= 16 + 2 * 12


def test_reading_stays_a_few_steps_ahead_and_stops_when_closed():
    """At most two batches for each thread; an error of the volume is raised by `batch`."""
    volume = CountingVolume(ArrayVolume(np.zeros((3, 40, 40), np.uint8)))
    source = LabelledPairs(volume, 1, labels=ArrayVolume(np.zeros((3, 40, 40), np.uint8)))
    take(BatchStream(source, None, settings(matching=0.0), CPU, workers=2), 0, 3)
    assert len(volume.sections) <= (3 + 4) * 2 * 2
    broken = LabelledPairs(UnreadableVolume(volume), 1, labels=volume)
    with pytest.raises(AssertionError, match="nobody may read"):
        take(BatchStream(broken, None, settings(), CPU), 0, 1)
