"""The domains of a run: the volumes, pairs and weights that a plan names."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mitoda.data.filled import FilledVolume
from mitoda.data.geometry import Geometry, shared_geometry
from mitoda.data.painted import PaintedLabels, open_painted
from mitoda.data.pairs import LabelledPairs, PaintedPairs, Pairs, UnlabelledPairs
from mitoda.datasets import DATASETS, find_dataset, is_dataset_spec, resolve
from mitoda.errors import FileError, InputError
from mitoda.methods import method_named
from mitoda.models.backbones import backbone_named
from mitoda.models.weights import DEFAULT_WEIGHTS, ThinSections, WeightsInfo, find_weights, read_info
from mitoda.synthetic.drawn import DrawnPairs, DrawnVolume, is_drawn, open_drawn
from mitoda.training.pseudo_labels import sections_near
from mitoda.training.settings import DEFAULT_SOURCE, Plan, TrainingSettings
from mitoda.volumes import CachedVolume, Volume, VoxelSize, open_labels, open_volume
from mitoda.volumes.address import split_pair
from mitoda.volumes.wrappers import sample_box

FOR_ANY_STACK: dict[str, Any] = {
    "threshold": 0.4,
    "thin": ThinSections(0.5, snap=True),
    "smoothing": 15.0,
    "smallest": 1e6,
}
"""How stacks are segmented with weights that are to serve any stack: learnt without a target, from draws of many scales
(`wide`). Chosen on data sets that were left out of training, see weights/README.md."""


@dataclass(frozen=True)
class Domain:
    """One volume, and its labels if they are needed."""

    name: str
    volume: Volume
    labels: Volume | None
    licence: str


def open_domain(
    spec: str,
    *,
    labelled: bool,
    voxel_size: VoxelSize | None = None,
    invert: bool = False,
    dest: str | None = None,
) -> Domain:
    """Open a volume by the name of a data set or by its path.

    Parameters
    ----------
    spec : str
        `NAME`, `NAME:SPLIT`, `drawn`, `drawn:COUNT`, a path, or IMAGES:LABELS (two paths).
    labelled : bool
        Whether to open labels too; without it none are read, even if there are some.
    voxel_size : (float, float, float), optional
        Nanometres; instead of that of the data set or the metadata.

    Raises
    ------
    FileError, InputError
        If a file or its labels are missing.
    """
    if is_drawn(spec):
        if not labelled:
            raise InputError(
                f"'{spec}' is tissue to learn from, a source; give a stack of images as the target"
            )
        return Domain(spec, *open_drawn(spec, dest), "none (drawn)")
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
    image_path, label_path = split_spec(spec) if labelled else (spec, None)
    volume = open_volume(image_path, voxel_size=voxel_size, invert=invert)
    labels = open_labels(label_path, voxel_size=voxel_size) if label_path is not None else None
    return Domain(spec, volume, labels, "of the user's own data")


def _check_foreground(labels: Volume) -> None:
    """Refuse labels of a source that have no foreground; reads up to the first section that has some."""
    if not any(labels.read(section).any() for section in range(labels.shape[0])):
        raise InputError(
            f"the labels {labels.name} have no foreground: all their values are 0; give labels in which mitochondria "
            "are not 0"
        )


def split_spec(spec: str) -> tuple[str, str]:
    """Split IMAGES:LABELS into two addresses; see `mitoda.volumes.address`.

    Examples
    --------
    >>> split_spec("stack.tif:mask.tif")
    ('stack.tif', 'mask.tif')
    """
    pair = split_pair(spec)
    if pair is not None:
        return pair
    raise InputError(
        f"'{spec}' has no labels; give IMAGES:LABELS (two paths with a colon between), or one of the data sets "
        f"{', '.join(DATASETS)}"
    )


@dataclass(frozen=True)
class Prepared:
    """What a plan opens: the pairs to learn from, and the metadata of the weights."""

    source: LabelledPairs | None
    """None without a source."""
    target: UnlabelledPairs
    geometry: Geometry
    info: WeightsInfo
    start: Path | None = None
    """File of the weights to start from."""
    painted: PaintedLabels | None = None
    """Painted places of the target; `source` has them too."""

    @property
    def stack(self) -> Volume:
        """The target's images as stored, without mirrored tissue in padding."""
        filled = self.target.volume
        while isinstance(filled, CachedVolume | FilledVolume):
            filled = filled.volume
        return filled

    def domains(self) -> list[tuple[str, Pairs]]:
        """Source (where there is one) and target, with their names."""
        every = () if self.source is None else self.source.every()
        every = tuple(one for one in every if not isinstance(one, PaintedPairs))
        sources = [
            (f"source {number}" if number > 1 else "source", one) for number, one in enumerate(every, 1)
        ]
        return [*sources, ("target", self.target)]


def prepare(plan: Plan) -> Prepared:
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
    for one in (source, *others):
        if one is not None and one.labels is not None:
            _check_foreground(one.labels)
    geometry = _choose_geometry(plan, source, target, begun)
    target_size = _known_size(target.volume, "target_voxel_size")
    # `segment` derives its stride from this spacing, so a given stride decides it.
    spacing = plan.target_stride * target_size[0] if plan.target_stride is not None else geometry.spacing
    source_pairs = None if source is None else _source_pairs(plan, source, others, target, geometry)
    filled = FilledVolume(target.volume if plan.labels is not None else sample_box(target.volume))
    target_pairs = UnlabelledPairs(
        CachedVolume(filled),
        _stride(plan.target_stride, geometry, target.volume, target_size),
        geometry.scale(target_size),
    )
    painted = None
    if plan.labels is not None:
        painted = open_painted(plan.labels, filled, section=plan.label_section)
        source_pairs = _with_paint(source_pairs, target_pairs, painted)
        grid = backbone_named(plan.training.backbone).grid
        target_pairs = replace(target_pairs, within=sections_near(painted.index, target_pairs, grid))
    licences = {target.licence} if cls.needs_target or painted is not None else set()
    licences |= {one.licence for one in (source, *others) if one is not None}
    licences |= set(begun.licence.split("; ")) if begun is not None else set()
    info = WeightsInfo(
        backbone=plan.training.backbone,
        pixel=geometry.pixel,
        spacing=spacing,
        method=plan.training.method,
        source=" + ".join(dict.fromkeys(one.name for one in (source, *others) if one is not None)),
        target=target.name if cls.needs_target or painted is not None else "",
        start=choose_start(plan) or "",
        licence="; ".join(sorted(licences)),
        seed=plan.training.seed,
    )
    if not info.target and plan.training.augmentation == "wide":
        info = replace(info, **FOR_ANY_STACK)
    return Prepared(source_pairs, target_pairs, geometry, info, start, painted)


def _with_paint(
    source: LabelledPairs | None, target: UnlabelledPairs, painted: PaintedLabels
) -> LabelledPairs:
    """Add the painted places of the target to the sources; they are drawn as often as all others together."""
    paint = PaintedPairs(target.volume, target.stride, target.scale, labels=painted)
    if source is None:
        return paint
    return replace(source, others=(*source.others, *[paint] * len(source.every())))


def choose_start(plan: Plan) -> str | None:
    """Return the weights that a plan starts from, with "auto" decided; None is from scratch.

    "auto" is the default pretrained weights if there must be no source, with painted labels, and for a stack of one's
    own if no source, method, backbone or scale is given. Fetched data sets start from scratch: the pretrained weights
    may have been trained on them, so no score of the result would count.
    """
    if plan.start != "auto":
        return plan.start
    defaults = (
        (plan.source, plan.pixel, plan.spacing) == (None, None, None)
        and plan.training.method == TrainingSettings.method
        and plan.training.backbone == TrainingSettings.backbone
    )
    own = defaults and not is_dataset_spec(plan.target)
    return DEFAULT_WEIGHTS if plan.source_free or plan.labels is not None or own else None


def choose_source(plan: Plan) -> str | None:
    """Return the first source of a plan, with the default decided; None is no source."""
    if plan.source_free:
        return None
    return plan.source or (DEFAULT_SOURCE if choose_start(plan) is None else None)


def _open_source(plan: Plan, target: Domain) -> Domain | None:
    """Open the labelled volume: the target itself for the oracle, none if there is no source."""
    spec = choose_source(plan)
    if method_named(plan.training.method)[0].labels_from == "target":
        return None if plan.source_free else target
    if spec is None:
        return None
    return open_domain(
        spec,
        labelled=True,
        voxel_size=plan.source_voxel_size,
        invert=plan.invert_source,
        dest=plan.dest,
    )


def _open_others(plan: Plan, source: Domain | None, target: Domain) -> list[Domain]:
    """Open the further sources; voxel size and inversion of the source in the plan are those of the first."""
    if not plan.more_sources:
        return []
    if source is None or source is target:
        raise InputError(
            f"more_sources needs a method that learns from a source; the run by '{plan.training.method}' has none"
        )
    opened = {
        one: open_domain(one, labelled=True, dest=plan.dest) for one in dict.fromkeys(plan.more_sources)
    }
    return [opened[one] for one in plan.more_sources]


def _source_pairs(
    plan: Plan, source: Domain, others: list[Domain], target: Domain, geometry: Geometry
) -> LabelledPairs:
    """Pairs of the sources; the oracle takes the target's stride. A source given twice is in memory once."""
    stride = plan.target_stride if source is target else plan.source_stride
    first = _pairs_of(source, geometry, stride)
    pairs = {id(one): _pairs_of(one, geometry, None) for one in others}
    return replace(first, others=tuple(pairs[id(one)] for one in others))


def _pairs_of(source: Domain, geometry: Geometry, stride: int | None) -> LabelledPairs:
    """Pairs of one source; those of drawn tissue are as they were drawn, and it has no padding to fill."""
    size = _known_size(source.volume, "source_voxel_size")
    if isinstance(source.volume, DrawnVolume) and source.labels is not None:
        return DrawnPairs(
            CachedVolume(source.volume), 1, geometry.scale(size), labels=CachedVolume(source.labels)
        )
    filled = FilledVolume(source.volume)
    return LabelledPairs(
        CachedVolume(filled),
        _stride(stride, geometry, source.volume, size),
        geometry.scale(size),
        labels=CachedVolume(FilledVolume(source.labels, filled.tissue))
        if source.labels is not None
        else None,
    )


def _choose_geometry(
    plan: Plan, source: Domain | None, target: Domain, begun: WeightsInfo | None
) -> Geometry:
    """Geometry that both domains share; that of the weights to start from, unless the plan says otherwise."""
    source_size = None if source is None else _reference_size(plan, source, target)
    target_size = _known_size(target.volume, "target_voxel_size")
    geometry = shared_geometry(source_size or target_size, target_size, plan.pixel, plan.spacing)
    if begun is None:
        return geometry
    return Geometry(
        geometry.pixel if plan.pixel is not None else begun.pixel,
        geometry.spacing if plan.spacing is not None else begun.spacing,
    )


def _starting_weights(plan: Plan) -> tuple[Path | None, WeightsInfo | None]:
    """Find the weights that a plan starts from; refuse those of another backbone."""
    start = choose_start(plan)
    if start is None:
        return None, None
    path = find_weights(start)
    info = read_info(path)
    if info.backbone != plan.training.backbone:
        raise InputError(
            f"the weights '{start}' to start from have the backbone '{info.backbone}', but the run has "
            f"'{plan.training.backbone}'; give backbone {info.backbone}, or start from scratch"
        )
    return path, info


def _reference_size(plan: Plan, source: Domain, target: Domain) -> VoxelSize:
    """Voxel size of the source; for the oracle that of the other methods' source, for equal pair distances."""
    if source is not target:
        return _known_size(source.volume, "source_voxel_size")
    if plan.source_voxel_size is not None:
        return plan.source_voxel_size
    spec = plan.source or DEFAULT_SOURCE
    if is_dataset_spec(spec):
        known = next(iter(find_dataset(spec).splits.values()))
        return known.voxel_size or _known_size(target.volume, "target_voxel_size")
    images, _ = split_spec(spec)
    return _known_size(open_volume(images), "source_voxel_size")


def _known_size(volume: Volume, parameter: str) -> VoxelSize:
    if volume.voxel_size is None:
        raise InputError(
            f"the voxel size of {volume.name} is not in its metadata; give {parameter} in nanometres: Z Y X "
            "(section thickness, then pixel size along rows and columns)"
        )
    return volume.voxel_size


def _stride(given: int | None, geometry: Geometry, volume: Volume, size: VoxelSize) -> int:
    return geometry.stride(size, volume.shape[0]) if given is None else given
