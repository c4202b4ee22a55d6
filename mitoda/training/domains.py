"""An adaptation as a person states it: which source, which target, which settings; saved so that it can be resumed."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from mitoda import __version__
from mitoda.data.geometry import Geometry, shared_geometry
from mitoda.data.pairs import LabelledPairs, Pairs, UnlabelledPairs
from mitoda.datasets import DATASETS, is_dataset_spec, resolve
from mitoda.errors import FileError, InputError
from mitoda.methods import method_named
from mitoda.models.weights import WeightsInfo, find_weights, read_info
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import TrainingSettings
from mitoda.volumes import CachedVolume, Volume, VoxelSize, open_labels, open_volume
from mitoda.volumes.files import read_record, write_record


@dataclass(frozen=True)
class Domain:
    """One volume with its labels, where they were asked for."""

    name: str
    volume: Volume
    labels: Volume | None
    licence: str


@dataclass(frozen=True)
class AdaptationPlan:
    """All that decides a run. Lengths are nanometres; None is derived or read from the metadata."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    source: str
    """A fetched data set (`vnc3`, `lucchi:training`) or IMAGES:LABELS; not opened where `source_free`."""
    target: str
    """A fetched data set or a path; for the oracle with labels, like a source."""
    training: TrainingSettings
    more_sources: tuple[str, ...] = ()
    """Further labelled volumes, each drawn from as often as `source`."""
    start: str | None = None
    """Weights to begin from: a bundled name, a file or a run's folder. None begins from scratch."""
    source_free: bool = False
    """Adapt to the target alone, from the weights of `start`."""
    source_voxel_size: VoxelSize | None = None
    target_voxel_size: VoxelSize | None = None
    source_stride: int | None = None
    target_stride: int | None = None
    pixel: float | None = None
    spacing: float | None = None
    invert_source: bool = False
    invert_target: bool = False
    dest: str | None = None
    """Where the fetched data sets lie; None is the usual place."""
    precision: str = "auto"
    version: str = field(default=__version__)

    def __post_init__(self) -> None:
        if self.source_free and self.start is None:
            raise InputError("--source-free needs weights to begin from: --start default, a file or a run")

    def save(self, folder: RunFolder) -> None:
        """Write the plan into the folder of a run."""
        write_record(folder.plan, self)


def load_plan(folder: RunFolder) -> AdaptationPlan:
    """Read the plan of a run.

    Raises
    ------
    FileError
        If the folder holds no run, or its plan is damaged.
    """
    if not folder.plan.is_file():
        raise FileError(f"{folder.path} holds no run of 'mitoda adapt': there is no {folder.plan.name} in it")
    return read_record(folder.plan, AdaptationPlan)


def extended(plan: AdaptationPlan, steps: int | None, minutes: float | None) -> AdaptationPlan:
    """Return the plan with another length, where one is given."""
    if steps is None and minutes is None:
        return plan
    return replace(plan, training=replace(plan.training, steps=steps, minutes=minutes))


def open_domain(
    spec: str,
    *,
    labelled: bool,
    voxel_size: VoxelSize | None = None,
    invert: bool = False,
    dest: str | None = None,
) -> Domain:
    """Open a volume by the name of a data set or by its path, with its labels only where they are asked for.

    Parameters
    ----------
    spec : str
        `NAME`, `NAME:SPLIT`, a path, or IMAGES:LABELS (two paths).
    labelled : bool
        Whether labels are needed. Where they are not, none are opened, even if they are there.
    voxel_size : (float, float, float), optional
        Nanometres; overrules table and metadata.

    Raises
    ------
    FileError, InputError
        If something is missing; the message says what and what to do.
    """
    if is_dataset_spec(spec):
        split = resolve(spec, dest)
        size = voxel_size or split.voxel_size
        volume = open_volume(split.volume, voxel_size=size, invert=invert)
        labels = None
        if labelled:
            if split.mask is None:
                raise FileError(f"{spec} was fetched without labels; choose another source, or fetch them")
            labels = open_labels(split.mask, voxel_size=size)
        return Domain(spec, volume, labels, DATASETS[split.dataset].licence)
    images, label_path = split_spec(spec) if labelled else (spec, None)
    volume = open_volume(images, voxel_size=voxel_size, invert=invert)
    labels = open_labels(label_path, voxel_size=voxel_size) if label_path is not None else None
    return Domain(spec, volume, labels, "of the person's own data")


def split_spec(spec: str) -> tuple[str, str]:
    """Split IMAGES:LABELS into two paths; a drive letter's colon does not count.

    Examples
    --------
    >>> split_spec("stack.tif:mask.tif")
    ('stack.tif', 'mask.tif')
    """
    places = [index for index, letter in enumerate(spec) if letter == ":"]
    for index in places:
        if Path(spec[:index]).exists() and Path(spec[index + 1 :]).exists():
            return spec[:index], spec[index + 1 :]
    places = [index for index in places if index != 1]
    if places:
        return spec[: places[0]], spec[places[0] + 1 :]
    raise InputError(
        f"'{spec}' has no labels; give IMAGES:LABELS (two paths with a colon between), or one of the data sets "
        f"{', '.join(DATASETS)}"
    )


@dataclass(frozen=True)
class Prepared:
    """What a plan opens: the pairs to learn from, and what is known about them."""

    source: LabelledPairs | None
    """None where the target is adapted to alone."""
    target: UnlabelledPairs
    geometry: Geometry
    info: WeightsInfo
    start: Path | None = None
    """Weights to begin from."""

    def domains(self) -> list[tuple[str, Pairs]]:
        """Source (where there is one) and target, with their names."""
        every = () if self.source is None else self.source.every()
        sources = [
            (f"source {number}" if number > 1 else "source", one) for number, one in enumerate(every, 1)
        ]
        return [*sources, ("target", self.target)]


def prepare(plan: AdaptationPlan) -> Prepared:
    """Open what a plan names and derive the geometry.

    Raises
    ------
    InputError, FileError
        If a volume cannot be opened or its voxel size is unknown.
    """
    cls, _ = method_named(plan.training.method)
    target = open_domain(
        plan.target,
        labelled=cls.labels_from == "target",
        voxel_size=plan.target_voxel_size,
        invert=plan.invert_target,
        dest=plan.dest,
    )
    source = _open_source(plan, target)
    others = _open_others(plan, source, target)
    start, begun = _starting_weights(plan)
    geometry = _choose_geometry(plan, source, target, begun)
    target_size = _known_size(target.volume, "--target-voxel-size")
    # A target stride that was given is what the weights are for; `segment` derives its stride from this spacing.
    spacing = plan.target_stride * target_size[0] if plan.target_stride is not None else geometry.spacing
    licences = {target.licence} if cls.needs_target else set()
    licences |= {one.licence for one in (source, *others) if one is not None}
    licences |= set(begun.licence.split("; ")) if begun is not None else set()
    return Prepared(
        None if source is None else _source_pairs(plan, source, others, target, geometry),
        UnlabelledPairs(
            CachedVolume(target.volume),
            _stride(plan.target_stride, geometry, target.volume, target_size),
            geometry.scale(target_size),
        ),
        geometry,
        WeightsInfo(
            backbone=plan.training.backbone,
            pixel=geometry.pixel,
            spacing=spacing,
            method=plan.training.method,
            source=" + ".join(one.name for one in (source, *others) if one is not None),
            target=target.name if cls.needs_target else "",
            start=plan.start or "",
            licence="; ".join(sorted(licences)),
            seed=plan.training.seed,
        ),
        start,
    )


def _open_source(plan: AdaptationPlan, target: Domain) -> Domain | None:
    """Open the labelled volume: the target itself for the oracle, none where the target is adapted to alone."""
    cls, _ = method_named(plan.training.method)
    if plan.source_free:
        if not cls.can_go_without_source:
            raise InputError(
                f"--source-free needs a method that labels the target itself, --method mitoda; "
                f"'{plan.training.method}' learns from the source in every step"
            )
        return None
    if cls.labels_from == "target":
        return target
    return open_domain(
        plan.source,
        labelled=True,
        voxel_size=plan.source_voxel_size,
        invert=plan.invert_source,
        dest=plan.dest,
    )


def _open_others(plan: AdaptationPlan, source: Domain | None, target: Domain) -> list[Domain]:
    """Open the further sources; a voxel size or an inversion given for the source is of the first alone."""
    if not plan.more_sources:
        return []
    if source is None or source is target:
        raise InputError(
            f"several sources need a method that learns from a source; '{plan.training.method}' has none here"
        )
    return [open_domain(spec, labelled=True, dest=plan.dest) for spec in plan.more_sources]


def _source_pairs(
    plan: AdaptationPlan, source: Domain, others: list[Domain], target: Domain, geometry: Geometry
) -> LabelledPairs:
    """Pairs of the sources; the oracle, which learns from the target, takes the target's stride."""
    stride = plan.target_stride if source is target else plan.source_stride
    first, *more = (
        LabelledPairs(
            CachedVolume(one.volume),
            _stride(stride if one is source else None, geometry, one.volume, size),
            geometry.scale(size),
            labels=CachedVolume(one.labels) if one.labels is not None else None,
        )
        for one in (source, *others)
        for size in [_known_size(one.volume, "--source-voxel-size")]
    )
    return replace(first, others=tuple(more))


def _choose_geometry(
    plan: AdaptationPlan, source: Domain | None, target: Domain, begun: WeightsInfo | None
) -> Geometry:
    """Steps that both domains share; weights that a run begins from know mitochondria at their own."""
    source_size = None if source is None else _reference_size(plan, source, target)
    target_size = _known_size(target.volume, "--target-voxel-size")
    geometry = shared_geometry(source_size or target_size, target_size, plan.pixel, plan.spacing)
    if begun is None:
        return geometry
    return Geometry(
        geometry.pixel if plan.pixel is not None else begun.pixel,
        geometry.spacing if plan.spacing is not None else begun.spacing,
    )


def _starting_weights(plan: AdaptationPlan) -> tuple[Path | None, WeightsInfo | None]:
    """Find the weights that a plan begins from, and refuse those of another network."""
    if plan.start is None:
        return None, None
    path = find_weights(plan.start)
    info = read_info(path)
    if info.backbone != plan.training.backbone:
        raise InputError(
            f"the weights '{plan.start}' to start from are of the backbone '{info.backbone}', and the run's is "
            f"'{plan.training.backbone}'; give --backbone {info.backbone}, or --from-scratch"
        )
    return path, info


def _reference_size(plan: AdaptationPlan, source: Domain, target: Domain) -> VoxelSize:
    """Voxel size of the source; the oracle takes that of the others' source, to step the same distance."""
    if source is not target:
        return _known_size(source.volume, "--source-voxel-size")
    if plan.source_voxel_size is not None:
        return plan.source_voxel_size
    if is_dataset_spec(plan.source):
        known = DATASETS[plan.source.partition(":")[0]].voxel_size
        return known or _known_size(target.volume, "--target-voxel-size")
    images, _ = split_spec(plan.source)
    return _known_size(open_volume(images), "--source-voxel-size")


def _known_size(volume: Volume, option: str) -> VoxelSize:
    if volume.voxel_size is None:
        raise InputError(
            f"the voxel size of {volume.name} is not in its metadata; give {option} Z Y X in nanometres "
            "(section thickness, then pixel size along rows and columns)"
        )
    return volume.voxel_size


def _stride(given: int | None, geometry: Geometry, volume: Volume, size: VoxelSize) -> int:
    if given is None:
        return geometry.stride(size, volume.shape[0])
    if given < 1:
        raise InputError(f"a stride is a number of sections, at least 1; got {given}")
    return given
