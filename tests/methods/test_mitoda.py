"""mitoda's own method: phases, what it teaches, and pseudo labels that lie where they should."""

import numpy as np
import pytest
import torch

from mitoda.data.augmentation import Augmentation, augmentation_named
from mitoda.data.pairs import PseudoLabels, UnlabelledBatch, UnlabelledPairs
from mitoda.data.probability_volume import CoarseVolume
from mitoda.data.sampling import read_batch, seeded, warp_batch, warp_pseudo_labels
from mitoda.methods import Teacher
from mitoda.methods.losses import IGNORE
from mitoda.methods.mitoda import ImageBoundary, SelfTraining, SelfTrainingSettings
from mitoda.volumes import ArrayVolume
from tests.methods.method_helpers import CPU, TINY, batches, build


def coarse(probabilities: np.ndarray) -> CoarseVolume:
    """A coarse volume of 20 × 20 × 5 nm voxels."""
    return CoarseVolume(probabilities, 0, (4.0, 4.0), (5.0, 20.0, 20.0))


def seen(prediction: CoarseVolume) -> Teacher:
    """A teacher that predicts this."""
    return Teacher(TINY.build(), lambda: prediction)


@pytest.fixture
def darkest_at(monkeypatch):
    """Let the contour be darkest at one level; a snapped volume has the reference level everywhere."""

    def fix(level: float) -> None:
        monkeypatch.setattr(ImageBoundary, "level", lambda self, fallback: level)
        monkeypatch.setattr(
            ImageBoundary,
            "snapped",
            lambda self, reference: coarse(np.full((40, 40, 40), round(reference * 255), np.uint8)),
        )

    return fix


NO_IMAGES = ArrayVolume(np.zeros((2, 160, 160), np.uint8), (5.0, 5.0, 5.0))


def test_rounds_follow_the_supervised_part_in_equal_shares():
    """The supervised share on the source alone, then equal rounds; the last number holds to the end."""
    method = build("mitoda", supervised_share="0.2", rounds="4")
    assert [method.round_of(p) for p in (0.0, 0.19, 0.2, 0.39, 0.41, 0.79, 0.81, 1.0)] == [
        0,
        0,
        1,
        1,
        2,
        3,
        4,
        4,
    ]


def test_the_source_is_left_after_its_rounds():
    """Source alone, then both, then the target alone; without a source never both."""
    method = build("mitoda", supervised_share="0.2", rounds="4", source_rounds="2")
    wanted = [tuple(method.wants(p)) for p in (0.0, 0.19, 0.21, 0.59, 0.61, 1.0)]
    assert wanted == [(True, False)] * 2 + [(True, True)] * 2 + [(False, True)] * 2
    assert tuple(build("mitoda").wants(0.59)) == (True, False)
    assert tuple(build("mitoda").wants(0.61)) == (False, True)
    resolved = method.settings.resolve(from_weights=True, source_free=True)
    method = SelfTraining(method.network, TINY, resolved, CPU)
    assert all(tuple(method.wants(p)) == (False, True) for p in (0.0, 0.5, 1.0))


def test_only_thin_sections_move_boundaries_and_drop_all_that_is_small():
    """Sections of 5 nm show membranes; those of 40 nm do not, and lose only specks. What is set stays."""

    def resolved(thickness_nm: float, **assignments: str) -> tuple[bool | None, float | None]:
        settings = SelfTrainingSettings.parse(assignments)
        settings = settings.resolve(from_weights=True, source_free=False, thickness_nm=thickness_nm)
        return settings.snap, settings.smallest

    assert resolved(5.0) == (True, 3e6)
    assert resolved(40.0) == (False, 1e6)
    assert resolved(40.0, snap="yes", smallest="2e6") == (True, 2e6)


def test_the_learning_rate_starts_anew_with_each_round():
    """It falls from 1 over the supervised part, and from the round's start over each round; never below 0."""
    method = build("mitoda", supervised_share="0.2", rounds="4", round_rate="0.5")
    assert method.schedule(0.0) == 1.0
    assert method.schedule(0.1999) < 0.01
    for start in (0.2, 0.4, 0.6, 0.8):
        assert method.schedule(start + 1e-9) == pytest.approx(0.5, abs=1e-3)
        assert method.schedule(start + 0.1) == pytest.approx(0.5 * 0.5**0.9, abs=1e-3)
    assert method.schedule(1.0) == 0.0


def test_without_pseudo_labels_it_is_source_only():
    """Before the first round its step is that of source-only, to the last bit."""
    one, other = build("mitoda"), build("source-only")
    one.update(*batches(), 0.1)
    other.update(*batches(), 0.1)
    assert all(
        torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True)
    )


def test_the_target_teaches_as_its_pseudo_labels_say():
    """With pseudo labels the network learns them on the target, and nothing where they are ignored."""
    source, target = batches()
    side = target.images.shape[-1] // 2
    labels = torch.full((1, 2, side, side), IGNORE)
    method = build("mitoda")
    losses = method.update(source, UnlabelledBatch(target.images, labels), 0.9)
    assert float(losses["target_first"]) == 0.0
    assert float(losses["target_ignored"]) == 1.0
    labels[..., : side // 2], labels[..., side // 2 :] = 0, 1
    for _ in range(30):
        losses = method.update(source, UnlabelledBatch(target.images, labels), 0.9)
    assert float(losses["target_first"]) < 0.2
    assert float(losses["target_residual"]) < 0.2


def test_levels_are_those_of_the_images(darkest_at):
    """What has been moved to the level found is mitochondrion, and background lies 0.25 below it."""
    method = build("mitoda", rounds="4")
    volume = coarse(np.full((40, 40, 40), 170, np.uint8))
    darkest_at(0.8)
    labels = method.relabel(seen(volume), NO_IMAGES)
    assert (labels.low, labels.high) == pytest.approx((0.55, 0.8))
    assert (labels.probabilities == 204).all()
    assert method.mask_settings["snap"]
    unmoved = build("mitoda", rounds="4", snap="no")
    darkest_at(0.6)
    assert (unmoved.relabel(seen(volume), NO_IMAGES).probabilities == 170).all()
    assert not unmoved.mask_settings["snap"]


def test_where_the_images_do_not_tell_the_level_is_a_fixed_one():
    """0.6, and background below 0.35, unless set otherwise."""
    nothing = coarse(np.zeros((2, 40, 40), np.uint8))
    labels = build("mitoda").relabel(seen(nothing), NO_IMAGES)
    assert (labels.low, labels.high) == pytest.approx((0.35, 0.6))
    assert build("mitoda", level="0.7").relabel(seen(nothing), NO_IMAGES).high == pytest.approx(0.7)


def test_small_components_are_taught_as_background(darkest_at):
    """What is no mitochondrion by its size falls below the level of background."""
    probabilities = np.zeros((3, 30, 30), np.uint8)
    probabilities[1, 5, 5] = 255  # 2000 nm³
    probabilities[:, 10:25, 10:25] = 255  # 1.35e6 nm³, of a stack of 15 nm
    darkest_at(0.6)
    labels = build("mitoda", snap="no").relabel(seen(coarse(probabilities)), NO_IMAGES)
    assert labels.probabilities[1, 5, 5] == 0
    assert (labels.probabilities[:, 10:25, 10:25] == 255).all()


@pytest.mark.parametrize("augmentation", [augmentation_named("none"), Augmentation(noise=0.0, blur=0.0)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (1.25, 1.25)])
def test_pseudo_labels_follow_the_images_through_the_warp(augmentation, scale):
    """A volume equal to its own pseudo labels: what is bright in a patch is labelled, under turn, zoom and scale."""
    row, column = np.mgrid[:400, :480]
    blob = np.exp(-(((row - 180) / 90) ** 2) - ((column - 260) / 120) ** 2)
    image = np.repeat((blob * 255).astype(np.uint8)[None], 3, axis=0)
    grid = 4
    cell = (grid * scale[0], grid * scale[1])
    cells = (int(400 / cell[0]), int(480 / cell[1]))
    place = [(np.arange(count) + 0.5) * size - 0.5 for count, size in zip(cells, cell, strict=True)]
    coarse_blob = np.exp(-(((place[0] - 180) / 90) ** 2)[:, None] - (((place[1] - 260) / 120) ** 2)[None])
    pseudo = PseudoLabels(
        np.repeat((coarse_blob * 255).astype(np.uint8)[None], 3, axis=0), 0, cell, low=0.45, high=0.55
    )
    pairs = UnlabelledPairs(ArrayVolume(image), stride=1, scale=scale)
    cpu = torch.device("cpu")
    for seed in range(4):
        draw = read_batch(pairs, 2, 128, augmentation, seeded(seed))
        images, _, _ = warp_batch(draw, augmentation, cpu)
        labels = warp_pseudo_labels(draw, pseudo, grid, cpu)
        assert labels.shape == (2, 2, 32, 32)
        shown = torch.nn.functional.avg_pool2d(images, grid) / 255
        assert (labels[shown > 0.58] == 1).all()
        assert (labels[shown < 0.42] == 0).all()
        assert (labels[(shown > 0.48) & (shown < 0.52)] == IGNORE).all()


def test_a_section_without_pseudo_labels_is_never_cut():
    """Batches are drawn from the labelled slab alone, so a draw from elsewhere is a defect, not a patch to ignore."""
    pseudo = PseudoLabels(
        np.zeros((1, 20, 20), np.uint8), first_section=0, cell=(4.0, 4.0), low=0.4, high=0.6
    )
    pairs = UnlabelledPairs(ArrayVolume(np.zeros((2, 80, 80), np.uint8)), stride=1)
    draw = read_batch(pairs, 1, 64, augmentation_named("none"), seeded(0))
    with pytest.raises(ValueError, match="1 is not in range"):
        warp_pseudo_labels(draw, pseudo, 4, torch.device("cpu"))
