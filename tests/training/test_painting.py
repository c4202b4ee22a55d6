"""Painted labels in training: what is measured on the held-back part, and what is decided from it."""

from dataclasses import fields, replace

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage

from mitoda.data.painted import open_painted
from mitoda.data.pairs import UnlabelledPairs
from mitoda.models.backbones import build_network
from mitoda.models.model import Model
from mitoda.models.pair_networks import PairNetwork
from mitoda.models.weights import WeightsInfo, read_info
from mitoda.training import adapt as training
from mitoda.training import painting, pseudo_labels
from mitoda.training.adapt import Finished, adapt
from mitoda.training.loop import RoundBegun
from mitoda.training.painting import HeldBackScore, Predicted, _looks_inverted, calibrate, f1_interval
from mitoda.training.report import HELD_BACK_ROWS
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan, TrainingSettings, load_plan
from mitoda.volumes import ArrayVolume, write_sections
from tests.fakes import compact_weights

VOXEL = (50.0, 5.0, 5.0)
INFO = WeightsInfo("compact", (5.0, 5.0), 50.0, smallest=3e5)


def predicted(probability: np.ndarray, truth: np.ndarray, held: np.ndarray) -> Predicted:
    """One painted section as a network predicts it."""
    classes = (1 + truth + 2 * held).astype(np.uint8)
    grey = np.full((1, *truth.shape), 100, np.uint8)
    return Predicted(classes, 0, grey, [probability.astype(np.float32)])


def squares() -> tuple[np.ndarray, np.ndarray]:
    """Nine mitochondria in each half; the right half is held back."""
    truth = np.zeros((100, 100), bool)
    for row in range(2, 98, 11):
        truth[row : row + 8, 60:90] = truth[row : row + 8, 10:40] = True
    held = np.zeros_like(truth)
    held[:, 50:] = True
    return truth, held


def test_the_threshold_is_the_one_that_suits_the_held_back_part():
    """Mitochondria that the network believes in by 0.3 only are found; what is learnt does not count."""
    truth, held = squares()
    probability = np.where(truth, np.where(held, 0.3, 0.9), 0.1)
    info = calibrate([predicted(probability, truth, held)], INFO, VOXEL)
    assert 0.2 <= info.threshold <= 0.3
    assert not info.snap
    assert info.smallest == 0


def test_small_components_are_removed_only_if_that_gains():
    """Specks that are not mitochondria are removed; specks that are stay."""
    truth, held = squares()
    specks = np.zeros_like(truth)
    specks[2:98:4, 52:58] = True
    removed = calibrate([predicted(np.where(truth | specks, 0.9, 0.0), truth, held)], INFO, VOXEL)
    assert removed.smallest == INFO.smallest
    kept = calibrate([predicted(np.where(truth | specks, 0.9, 0.0), truth | specks, held)], INFO, VOXEL)
    assert kept.smallest == 0


@pytest.mark.parametrize(("thickness", "snaps"), [(8.0, True), (50.0, False)])
def test_boundaries_move_to_membranes_only_where_sections_are_thin(thickness, snaps):
    """Every other mitochondrion is predicted too wide, the others too narrow, and their membranes are dark."""
    truth, held = (np.kron(one, np.ones((3, 3), bool)) for one in squares())
    outside, inside = ndimage.distance_transform_edt(~truth), ndimage.distance_transform_edt(truth)
    level = np.where(np.arange(300)[:, None] // 33 % 2, 0.35, 0.65)
    probability = np.clip(level - 0.03 * (outside - inside), 0.01, 1.0)
    grey = np.where(abs(outside - inside) <= 1, 20, 150).astype(np.uint8)
    one = predicted(probability, truth, held)._replace(images=grey[None])
    info = calibrate([one], replace(INFO, smallest=0.0), (thickness, 5.0, 5.0))
    assert info.snap == snaps


def test_few_objects_decide_on_nothing_but_a_threshold_near_one_half():
    """One held-back mitochondrion that the network hardly sees must not lower the threshold for the whole stack."""
    truth, held = squares()
    held[14:] = False
    probability = np.where(truth, np.where(held, 0.12, 0.9), 0.1)
    info = calibrate([predicted(probability, truth, held)], INFO, VOXEL)
    assert info.threshold == 0.5
    assert (info.snap, info.smallest) == (False, 0.0)


@pytest.mark.parametrize(
    ("sure_of", "share", "told"),
    [
        ({0.0: 0.9, 0.5: 0.3, 1.0: 0.1}, 0.0, "continues from its starting weights"),
        ({0.0: 0.1, 0.5: 0.3, 1.0: 0.9}, 1.0, ""),
        ({0.0: 0.9, 0.5: 0.9, 1.0: 0.9}, 0.5, ""),
    ],
)
def test_weights_are_mixed_as_suits_the_held_back_part(monkeypatch, sure_of, share, told):
    """Of the weights before, after, and their mean, the mean is taken where none is clearly better."""
    truth, held = squares()
    start, trained = (constant_network(value) for value in (0.0, 1.0))

    def predict_fake(model: Model, volume: object, painted: object) -> list[Predicted]:
        """More of each mitochondrion is found the surer the weights are of it."""
        found = sure_of[float(next(model.network.parameters()).detach().mean())]
        rows = np.arange(100)[:, None] % 11 < 2 + 8 * found
        return [predicted(np.where(truth & rows, 0.9, 0.0), truth, held)]

    monkeypatch.setattr(painting, "predict_painted", predict_fake)
    volume = ArrayVolume(np.zeros((3, 8, 8), np.uint8), VOXEL, "stack")
    score, network = painting.score_held_back(7, Model(start, INFO), Model(trained, INFO), volume, None)
    assert float(next(network.parameters()).detach().mean()) == share
    assert score.share == share
    assert told in score.warning
    assert score.after >= score.before


def test_the_interval_of_f1_covers_it_as_often_as_it_says():
    """Twenty objects of a tissue where a fifth of all is missed, a fifth false, and the rest found."""
    rng = np.random.default_rng(0)
    squares, held = np.kron(np.eye(20), np.ones((2, 2))).astype(bool), np.ones((40, 40), bool)
    covered = []
    for _ in range(300):
        kind = np.repeat(rng.choice(3, 20, p=(0.2, 0.6, 0.2)), 2)
        truth, found = squares & (kind < 2), squares & (kind > 0)
        low, high = f1_interval([predicted(found * 0.9, truth, held)], [found])
        covered.append(low <= 0.75 <= high)
    assert 0.9 <= np.mean(covered) <= 0.99


def test_without_an_object_the_interval_says_nothing():
    """Nothing painted there, nothing found."""
    nothing = np.zeros((9, 9), bool)
    assert f1_interval([predicted(nothing * 0.9, nothing, ~nothing)], [nothing]) == (0.0, 1.0)


def constant_network(value: float) -> PairNetwork:
    """A network whose weights all have one value."""
    network = build_network("compact")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    return network


@pytest.fixture
def target(tmp_path, target_phantom):
    """A stack on disk with one painted section, and weights to start from."""
    image, label = target_phantom
    write_sections(tmp_path / "stack.tif", image.array, image.shape, image.dtype, image.voxel_size)
    tifffile.imwrite(tmp_path / "few.tif", np.where(label.array[3] != 0, 2, 1).astype(np.uint8))
    compact_weights(tmp_path / "start.safetensors", pixel=(10.0, 10.0), spacing=20.0)
    return tmp_path


def plan_of(folder, **changes) -> Plan:
    """Four steps on the painted section alone."""
    return replace(
        Plan(
            str(folder / "stack.tif"),
            training=TrainingSettings(steps=4, patch=128, batch_size=1, workers=1),
            labels=str(folder / "few.tif"),
            label_section=3,
            source_free=True,
            start=str(folder / "start.safetensors"),
        ),
        **changes,
    )


def test_a_run_with_painted_labels_measures_and_calibrates(target):
    """The score comes once, after the held-back phase; the weights carry its mask settings."""
    events = list(adapt(plan_of(target), target / "run", device="cpu"))
    scores = [event for event in events if isinstance(event, HeldBackScore)]
    assert len(scores) == 1
    assert scores[0].step == 2
    assert scores[0].objects > 0
    assert scores[0].before is not None
    finished = events[-1]
    assert isinstance(finished, Finished)
    info = read_info(finished.weights)
    assert (info.threshold, info.snap) == (scores[0].threshold, scores[0].snap)
    assert info.notes["F1 on held-back labels"] == f"{scores[0].after:.3f}"
    page = finished.report.read_text(encoding="utf-8")
    assert "painted place in section 3, before the run" in page
    assert "no label of the target was read except the painted ones" in page
    assert "95 % interval, from" in page
    assert "looks_inverted" not in page
    assert set(HELD_BACK_ROWS) <= {field.name for field in fields(HeldBackScore)}


@pytest.mark.parametrize(
    ("found", "limit", "assignments", "rounds"),
    [
        (0.9, 10**6, {"supervised_share": "0", "rounds": "2"}, [0, 2]),
        (0.1, 10**6, {}, [2]),
        (0.9, 1, {"supervised_share": "1"}, []),
    ],
)
def test_a_start_labels_the_stack_only_where_it_is_good(
    monkeypatch, target, found, limit, assignments, rounds
):
    """From the beginning, after the paint was learnt, or never where sections are too large for a short run."""
    monkeypatch.setattr(training, "score_start", lambda *arguments: found)
    monkeypatch.setattr(pseudo_labels, "PAINTED_LIMIT", limit)
    events = list(adapt(plan_of(target), target / "run", device="cpu"))
    assert load_plan(RunFolder(target / "run")).training.assignments == assignments
    assert [event.step for event in events if isinstance(event, RoundBegun)] == rounds


def test_labelled_sections_lie_around_the_paint():
    """As many as are soon labelled, and at least a pair."""
    pairs = UnlabelledPairs(ArrayVolume(np.zeros((50, 64, 64), np.uint8), VOXEL), 3, (1.0, 1.0))
    cells = 16 * 16
    assert pseudo_labels.sections_near([20], pairs, 4) == range(50)
    for painted, depth, expected in (
        ([20], 10, range(15, 25)),
        ([1, 2, 49], 10, range(10)),
        ([49], 10, range(40, 50)),
        ([20], 2, range(18, 22)),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pseudo_labels, "PAINTED_LIMIT", depth * cells)
            within = pseudo_labels.sections_near(painted, pairs, 4)
        assert within == expected
        drawn = replace(pairs, within=within)
        assert {drawn.sections(n) for n in range(drawn.count)} == {(k, k + 3) for k in within[:-3]}


def test_a_resumed_run_keeps_its_score(target):
    """Stopped after the score, it is neither measured again nor lost."""
    folder, seen = RunFolder(target / "run"), []

    def stop() -> bool:
        return bool(seen)

    for event in adapt(plan_of(target), folder.path, device="cpu", should_stop=stop):
        if isinstance(event, HeldBackScore):
            seen.append(event)
    assert seen
    events = list(adapt(load_plan(folder), folder.path, device="cpu", resume=True))
    assert not [event for event in events if isinstance(event, HeldBackScore)]
    assert read_info(folder.weights).threshold == seen[0].threshold


def test_a_source_can_stand_beside_the_paint(target, source_phantom):
    """Both are drawn from."""
    image, label = source_phantom
    for name, volume in (("source", image), ("mask", label)):
        write_sections(target / f"{name}.tif", volume.array, volume.shape, volume.dtype, volume.voxel_size)
    plan = plan_of(
        target, source_free=False, source=f"{target / 'source.tif'}:{target / 'mask.tif'}", start=None
    )
    events = list(adapt(plan, target / "run", device="cpu"))
    assert [name for name, _ in events[0].prepared.domains()] == ["source", "target"]
    assert events[-1].complete


def test_inverted_classes_are_noticed(target, target_phantom):
    """A network that finds mitochondria where background is painted, and none where mitochondria are."""
    image, label = target_phantom
    tifffile.imwrite(target / "wrong.tif", np.where(label.array[3] != 0, 1, 2).astype(np.uint8))
    stack = ArrayVolume(image.array, image.voxel_size, "stack")
    inverted = open_painted(target / "wrong.tif", stack, section=3)
    right = open_painted(target / "few.tif", stack, section=3)

    def looks_inverted(painted) -> bool:
        maps = [one.astype(np.float32) for one in label.array != 0]
        one = Predicted(painted.read(3), 3, image.array, maps)
        return _looks_inverted([one])

    assert looks_inverted(inverted)
    assert not looks_inverted(right)
    assert "inverted" in HeldBackScore(1, 0.5, 0.1, 0.5, False, 0.0, 10, True).warning
