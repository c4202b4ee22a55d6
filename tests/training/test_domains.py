"""Plans: saved and read, opened with labels only where they may be, and what is derived from voxel sizes."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mitoda.data.augmentation import Augmentation
from mitoda.data.geometry import Geometry
from mitoda.data.sampling import read_batch, seeded
from mitoda.errors import FileError, InputError
from mitoda.methods import METHODS
from mitoda.models.weights import DEFAULT_WEIGHTS
from mitoda.training import domains as adaptation
from mitoda.training.domains import choose_source, choose_start, open_domain, prepare, split_spec
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan, TrainingSettings, load_plan
from mitoda.volumes import ArrayVolume, write_sections
from mitoda.volumes.wrappers import sample_box
from tests.fakes import ComputedVolume, compact_weights

TRAINING = TrainingSettings(
    method="isc", steps=2, patch=128, batch_size=1, workers=1, assignments={"consistency": "0.2"}
)


@pytest.fixture
def files(tmp_path, source_phantom, target_phantom):
    """Both phantoms as files: source.tif, source_mask.tif, target.tif, target_mask.tif."""
    for name, (image, label) in (("source", source_phantom), ("target", target_phantom)):
        for path, volume in ((f"{name}.tif", image), (f"{name}_mask.tif", label)):
            write_sections(tmp_path / path, volume.array, volume.shape, volume.dtype, volume.voxel_size)
    return tmp_path


def plan_for(files, **changes) -> Plan:
    """From the source phantom to the target phantom."""
    source = f"{files / 'source.tif'}:{files / 'source_mask.tif'}"
    plan = Plan(str(files / "target.tif"), source, TRAINING)
    return replace(plan, **changes)


def test_a_plan_survives_the_disk(tmp_path):
    """All fields, with tuples as tuples."""
    plan = Plan(
        "stack.tif", "vnc3", TRAINING, target_voxel_size=(10.0, 5.0, 5.0), spacing=40.0, invert_target=True
    )
    plan.save(RunFolder(tmp_path))
    assert load_plan(RunFolder(tmp_path)) == plan


def test_padding_is_mirrored_tissue_in_images_and_labels(files, source_phantom, target_phantom):
    """A frame around source and target is gone, and the source's labels continue as its images do."""
    frame = ((0, 0), (40, 40), (40, 40))
    for name, volumes in (("source", source_phantom), ("target", target_phantom)):
        for path, volume in zip((f"{name}.tif", f"{name}_mask.tif"), volumes, strict=True):
            padded = np.pad(volume.array, frame)
            size = source_phantom[0].voxel_size if name == "source" else target_phantom[0].voxel_size
            write_sections(files / path, padded, padded.shape, padded.dtype, size, overwrite=True)
    prepared = prepare(plan_for(files))
    for pairs, image in ((prepared.source, source_phantom[0]), (prepared.target, target_phantom[0])):
        inside, whole = image.read(1), pairs.volume.read(1)
        assert np.array_equal(whole[44:-44, 44:-44], inside[4:-4, 4:-4])
        assert whole[:36].mean() == pytest.approx(inside[:36].mean(), rel=0.1)
    labels, truth = prepared.source.labels.read(1) != 0, source_phantom[1].read(1) != 0
    assert labels[:40].sum() > 0.5 * truth[:40].sum() > 0


def test_a_folder_without_a_run_or_with_another_versions_is_refused(tmp_path):
    """Missing, not JSON, or with fields nobody knows."""
    with pytest.raises(FileError, match=r"holds no run of 'mitoda adapt': there is no run.json"):
        load_plan(RunFolder(tmp_path))
    Plan("b", "a", TRAINING).save(RunFolder(tmp_path))
    values = json.loads((tmp_path / "run.json").read_text())
    for text in ("{", json.dumps({**values, "colour": 1}), json.dumps({"source": "a"}), "[]"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(FileError, match=r"run.json is not a valid record: .*another version of mitoda"):
            load_plan(RunFolder(tmp_path))


def test_a_run_is_extended_by_steps_or_minutes():
    """One replaces the other; neither leaves the plan as it is."""
    plan = Plan("b", "a", TRAINING)
    assert plan.extended(None, None) is plan
    assert (plan.extended(9, None).training.steps, plan.extended(9, None).training.minutes) == (9, None)
    assert (plan.extended(None, 2.5).training.steps, plan.extended(None, 2.5).training.minutes) == (
        None,
        2.5,
    )


def test_strides_scale_and_licence_are_derived(files):
    """50 nm sections with 10 nm sections: strides 1 and 5; the target's pixels; nobody's data but the person's."""
    prepared = prepare(plan_for(files))
    assert (prepared.source.stride, prepared.target.stride) == (1, 5)
    assert prepared.geometry.spacing == prepared.info.spacing == 50.0
    assert prepared.info.pixel == pytest.approx(prepared.target.volume.voxel_size[1:])
    assert prepared.target.scale == (1.0, 1.0)
    assert prepared.info.licence == "of the user's own data"
    assert prepared.info.method == "isc"


def test_a_target_stride_that_is_given_is_what_the_weights_remember(files):
    """`mitoda segment` derives its stride from the weights' spacing: 2 sections of 10 nm are 20 nm."""
    prepared = prepare(plan_for(files, target_stride=2, source_stride=1))
    assert prepared.target.stride == 2
    assert prepared.info.spacing == pytest.approx(20.0)
    with pytest.raises(InputError, match="too few for pairs 8 sections apart"):
        prepare(plan_for(files, target_stride=8))


def test_weights_to_start_from_bring_their_scale_and_their_licence(files, tmp_path):
    """The run works at the pixels and the spacing that they know, unless the person says otherwise."""
    path = tmp_path / "known.safetensors"
    compact_weights(path, pixel=(8.0, 8.0), spacing=40.0, licence="of the moon")
    prepared = prepare(plan_for(files, start=str(path)))
    assert prepared.start == path
    assert prepared.geometry == Geometry((8.0, 8.0), 40.0)
    assert prepared.target.stride == 4
    assert (prepared.info.pixel, prepared.info.spacing) == ((8.0, 8.0), 40.0)
    assert prepared.info.start == str(path)
    assert prepared.info.licence == "of the moon; of the user's own data"
    own = prepare(plan_for(files, start=str(path), pixel=6.0, spacing=20.0)).geometry
    assert own == Geometry((6.0, 6.0), 20.0)
    assert prepare(plan_for(files)).start is None


def test_several_sources_are_drawn_from_each_at_its_own_scale(files):
    """Names and licences of all; each has its own stride and scale; none is left out of what is announced."""
    plan = plan_for(files)
    more = f"{files / 'target.tif'}:{files / 'target_mask.tif'}"
    prepared = prepare(replace(plan, more_sources=(more,)))
    (other,) = prepared.source.others
    assert (prepared.source.stride, other.stride) == (1, 5)
    assert other.scale == (1.0, 1.0)
    assert other.labels is not None
    assert prepared.info.source == f"{plan.source} + {more}"
    assert [name for name, _ in prepared.domains()] == ["source", "source 2", "target"]
    twice = prepare(replace(plan, more_sources=(more, more)))
    assert twice.source.others[0].volume is twice.source.others[1].volume  # in memory once
    assert twice.info.source == prepared.info.source
    oracle = replace(plan.training, method="oracle", assignments={})
    with pytest.raises(
        InputError, match="more_sources needs a method that learns from a source; the run by 'oracle'"
    ):
        prepare(replace(plan, target=more, more_sources=(more,), training=oracle))


def test_weights_of_another_backbone_are_no_start(files):
    """Refused with both names, before any training."""
    plan = plan_for(files, start="default", training=replace(TRAINING, backbone="codetection"))
    with pytest.raises(
        InputError, match=r"'default' to start from have the backbone 'compact', but the run has"
    ):
        prepare(plan)


def test_without_a_source_nothing_of_one_is_opened(files, tmp_path):
    """Scale, spacing and licence come from the weights to begin from; methods that need a source are refused."""
    path = tmp_path / "known.safetensors"
    compact_weights(path, pixel=(8.0, 8.0), spacing=40.0, licence="of the moon")
    ours = replace(TRAINING, method="mitoda", assignments={})
    plan = plan_for(files, source="nowhere", start=str(path), source_free=True, training=ours)
    prepared = prepare(plan)
    assert prepared.source is None
    assert [name for name, _ in prepared.domains()] == ["target"]
    assert prepared.geometry == Geometry((8.0, 8.0), 40.0)
    assert (prepared.info.source, prepared.info.licence) == ("", "of the moon; of the user's own data")
    with pytest.raises(InputError, match="training without a source needs weights to start from"):
        replace(plan, start=None)


def test_labels_of_the_target_are_opened_by_the_oracle_and_nobody_else(files, monkeypatch):
    """Every label file that is opened is recorded: the source's for all methods, the target's for the oracle alone."""
    opened = []
    original = adaptation.open_labels

    def record(path, **options):
        opened.append(str(path))
        return original(path, **options)

    monkeypatch.setattr(adaptation, "open_labels", record)
    for name, method in METHODS.items():
        opened.clear()
        training = replace(TRAINING, method=name, assignments={})
        target = str(files / "target.tif")
        if method.labels_from == "target":
            prepared = prepare(
                plan_for(files, training=training, target=f"{target}:{files / 'target_mask.tif'}")
            )
            assert opened == [str(files / "target_mask.tif")]
            assert prepared.source.volume.name == target
        else:
            prepared = prepare(plan_for(files, training=training))
            assert opened == [str(files / "source_mask.tif")]
            assert not hasattr(prepared.target, "labels")
    with pytest.raises(InputError, match="has no labels; give IMAGES:LABELS"):
        prepare(plan_for(files, training=replace(TRAINING, method="oracle", assignments={})))


def test_a_missing_voxel_size_names_the_option(tmp_path):
    """Source and target each by theirs; given, they open."""
    array = np.zeros((2, 64, 64), np.uint8)
    array[:, 20:40, 20:40] = 1
    for name in ("a", "b", "m"):
        write_sections(tmp_path / f"{name}.tif", array, array.shape, array.dtype, None)
    plan = Plan(str(tmp_path / "b.tif"), f"{tmp_path / 'a.tif'}:{tmp_path / 'm.tif'}", TRAINING)
    with pytest.raises(
        InputError, match=r"a.tif is not in its metadata; give source_voxel_size in nanometres: Z Y X"
    ):
        prepare(plan)
    plan = replace(plan, source_voxel_size=(50.0, 5.0, 5.0))
    with pytest.raises(
        InputError, match=r"b.tif is not in its metadata; give target_voxel_size in nanometres: Z Y X"
    ):
        prepare(plan)
    assert prepare(replace(plan, target_voxel_size=(50.0, 5.0, 5.0))).target.stride == 1
    with pytest.raises(InputError, match="give voxel sizes in nanometres"):
        prepare(replace(plan, source_voxel_size=(50.0, 200.0, 200.0), target_voxel_size=(50.0, 5.0, 5.0)))


def test_images_and_labels_are_split_at_the_colon_that_fits(tmp_path, monkeypatch):
    """A Windows drive does not count; among several colons the one between two files does; short names work."""
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.tif", "c.tif", "s", "m"):
        (tmp_path / name).touch()
    assert split_spec("a:b.tif:c.tif") == ("a:b.tif", "c.tif")
    assert split_spec("s:m") == ("s", "m")
    assert split_spec(r"C:\data\x.tif:y.tif") == (r"C:\data\x.tif", "y.tif")
    assert split_spec("gone.tif:missing.tif") == ("gone.tif", "missing.tif")
    with pytest.raises(InputError, match="has no labels; give IMAGES:LABELS"):
        split_spec("c.tif")


def test_the_contrast_of_a_target_can_be_inverted(files):
    """--invert reads 255 − v."""
    plain, inverted = (
        open_domain(str(files / "target.tif"), labelled=False, invert=i).volume for i in (False, True)
    )
    assert np.array_equal(255 - plain.read(3), inverted.read(3))


def test_the_oracle_steps_the_distance_of_the_others(files):
    """It learns from 10 nm sections, but in pairs as far apart as the source's sections are: 50 nm, five sections."""
    labelled = f"{files / 'target.tif'}:{files / 'target_mask.tif'}"
    training = replace(TRAINING, method="oracle", assignments={})
    for source in ("vnc3", f"{files / 'source.tif'}:{files / 'source_mask.tif'}"):
        prepared = prepare(plan_for(files, source=source, target=labelled, training=training))
        assert prepared.info.spacing == 50.0
        assert (prepared.source.stride, prepared.source.scale) == (5, (1.0, 1.0))


def test_only_a_stack_of_ones_own_with_the_defaults_starts_from_pretrained_weights(tmp_path):
    """Another source, method or geometry, and a fetched data set, start from scratch; what is given is kept."""
    own = Plan(str(tmp_path / "stack.tif"))
    assert choose_start(own) == choose_start(replace(own, source_free=True, pixel=8.0)) == DEFAULT_WEIGHTS
    isc = replace(own.training, method="isc")
    for changes in (
        {"target": "lucchi"},
        {"source": "a:b"},
        {"training": isc},
        {"pixel": 8.0},
        {"start": None},
    ):
        assert choose_start(replace(own, **changes)) is None
    assert choose_start(replace(own, target="lucchi", start="mine")) == "mine"


def test_a_run_from_weights_has_no_source_unless_one_is_given(tmp_path):
    """From scratch it has the default source."""
    own = Plan(str(tmp_path / "stack.tif"))
    public = replace(own, target="lucchi")
    assert choose_source(own) is choose_source(replace(public, start="mine")) is None
    assert choose_source(replace(own, start=None)) == choose_source(public) == "vnc3"
    assert (
        choose_source(replace(own, labels="few.tif"))
        is choose_source(replace(public, source_free=True))
        is None
    )
    assert choose_source(replace(own, source="a:b", start="mine")) == "a:b"


def test_labels_of_a_source_without_foreground_are_refused(files, source_phantom):
    """Before any training; one labelled pixel in the last section is enough."""
    labels = np.zeros_like(source_phantom[1].array)
    path = files / "source_mask.tif"
    write_sections(path, labels, labels.shape, labels.dtype, source_phantom[1].voxel_size, overwrite=True)
    with pytest.raises(InputError, match=r"source_mask.tif have no foreground: all their values are 0"):
        prepare(plan_for(files))
    labels[-1, 5, 5] = 1
    write_sections(path, labels, labels.shape, labels.dtype, source_phantom[1].voxel_size, overwrite=True)
    prepare(plan_for(files))


def test_drawn_tissue_is_a_source_and_no_target(tmp_path):
    """As a source it has images and labels; as a target it is refused."""
    drawn = open_domain("drawn:2", labelled=True, dest=str(tmp_path))
    assert drawn.volume.shape == drawn.labels.shape == (4, 704, 704)
    with pytest.raises(InputError, match="a source; give a stack of images as the target"):
        open_domain("drawn:2", labelled=False)


def test_weights_for_any_stack_carry_how_to_segment_it(files):
    """Learnt without the target from wide draws; other weights keep the plain threshold."""

    def threshold(**changes) -> float:
        return prepare(plan_for(files, training=replace(TRAINING, assignments={}, **changes))).info.threshold

    assert threshold(method="source-only", augmentation="wide") == 0.4
    assert threshold(method="source-only") == 0.5
    assert threshold(method="isc", augmentation="wide") == 0.5


def test_a_target_of_ten_terabytes_is_learnt_from_a_box_in_bounded_memory(files, monkeypatch):
    """No section is read whole; batches, and the section in the middle, lie in 512 sections of 2048 × 2048 pixels."""
    volume = ComputedVolume((25_000, 20_000, 20_000), (8.0, 8.0, 8.0))
    original = adaptation.open_domain

    def opened(spec, **options):
        if spec == "huge":
            return adaptation.Domain("huge", volume, None, "none")
        return original(spec, **options)

    monkeypatch.setattr(adaptation, "open_domain", opened)
    prepared = prepare(plan_for(files, target="huge"))
    assert prepared.stack.shape == prepared.target.volume.shape == (512, 2048, 2048)
    for step in range(3):
        draw = read_batch(prepared.target, 2, 128, Augmentation(), seeded(0, step))
        assert len(draw.crops) == 2
    assert volume.most <= 2048 * 2048
    assert max(volume.sections) - min(volume.sections) < 512


def test_a_large_target_without_tissue_in_the_middle_of_its_boxes_is_refused():
    """Instead of training on padding."""
    volume = ComputedVolume((25_000, 20_000, 20_000), (8.0, 8.0, 8.0))
    volume.read = lambda section, rows, columns: np.zeros((8, 8), np.uint8)
    with pytest.raises(InputError, match="constant in the middle of twenty boxes"):
        sample_box(volume)


def test_a_constant_stack_is_refused():
    """Nothing can be learnt from it; one section with an image is enough to go on."""
    sections = np.full((5, 8, 8), 7, np.uint8)
    with pytest.raises(InputError, match="all sections of array are constant"):
        sample_box(ArrayVolume(sections))
    sections[4, 2, 2] = 8
    assert sample_box(ArrayVolume(sections)).shape == (5, 8, 8)
