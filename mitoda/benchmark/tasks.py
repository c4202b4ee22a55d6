"""Benchmark tasks: a labelled source, a target to adapt to, and a held-out volume with labels to score on."""

from dataclasses import dataclass, replace
from pathlib import Path

from mitoda.benchmark.published import PAPER_ORDER
from mitoda.datasets import is_dataset_spec, resolve
from mitoda.errors import FileError, InputError, check_numbers
from mitoda.methods import METHODS, NEED_RESIDUAL, method_named
from mitoda.models.backbones import backbone_named
from mitoda.synthetic import SOURCE, TARGET, PhantomDomain, draw_phantom
from mitoda.training.settings import Plan, TrainingSettings
from mitoda.volumes import Volume, VoxelSize, open_labels, open_volume, write_sections

PHANTOM = "phantom"
LODO = "lodo"
"""Leaves each data set out in turn; see `lodo`."""
PHANTOM_SEED = 17
PHANTOM_VOLUMES: dict[str, tuple[PhantomDomain, tuple[int, int, int]]] = {
    "source": (SOURCE, (10, 384, 384)),
    "target": (TARGET, (20, 384, 384)),
    "test": (TARGET, (12, 384, 384)),
}
"""What is drawn for the task `phantom`: sections, rows, columns of each volume."""


@dataclass(frozen=True)
class Task:
    """One adaptation and its test. Volumes are given as `NAME:SPLIT` of a fetched data set, or as paths."""

    name: str
    source: str
    """With labels: a data set, or IMAGES:LABELS."""
    target: str
    """The volume that is adapted to; its labels are not opened."""
    test: str
    """The volume that is scored."""
    labels: str | None = None
    """Labels of `test`: a path or a fetched data set; None takes those fetched with `test`."""
    target_labelled: str | None = None
    """`target` with its labels, for the oracle alone; None where there are none."""
    source_voxel_size: VoxelSize | None = None
    target_voxel_size: VoxelSize | None = None
    """Of `target` and `test`, in nanometres; None is read from the catalogue or the metadata."""
    minutes: float | None = 30.0
    """Length of each training; None where `steps` gives it."""
    steps: int | None = None
    patch: int = 512
    ema_decay: float = 0.995

    @property
    def is_transductive(self) -> bool:
        """Whether the images that are scored are those adapted to."""
        return self.test == self.target


TASKS: dict[str, Task] = {
    "vnc3-lucchi-s1": Task("vnc3-lucchi-s1", "vnc3", "lucchi:training", "lucchi:testing"),
    "vnc3-lucchi-s2": Task("vnc3-lucchi-s2", "vnc3", "lucchi:testing", "lucchi:training"),
    "mitoem-r-h": Task("mitoem-r-h", "mitoem-r:training", "mitoem-h:training", "mitoem-h:validation"),
    "mitoem-h-r": Task("mitoem-h-r", "mitoem-h:training", "mitoem-r:training", "mitoem-r:validation"),
}
"""Tasks on fetched data sets; `phantom` is drawn, see `find_task`."""


@dataclass(frozen=True)
class BenchSettings:
    """What is the same for every task."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    backbone: str = "compact"
    """The same for every method."""
    keep: int = 0
    """Number of checkpoints to keep and score along each training, to study label-free selection."""
    dest: str | None = None
    """Folder of the fetched data sets; None is the default one."""

    def __post_init__(self) -> None:
        check_numbers(self, keep=(0, 1000))
        if not self.methods:
            raise InputError("no method was given; give 'all' or names such as isc,source-only")
        for name in self.methods:
            method_named(name)


def choose_methods(text: str) -> tuple[str, ...]:
    """Read names separated by commas, or `all` for the paper's methods and then mitoda."""
    if text.strip() == "all":
        return tuple(name for name in (*PAPER_ORDER, "mitoda") if name in METHODS)
    return split_names(text)


def split_names(text: str) -> tuple[str, ...]:
    """Read names separated by commas, each once.

    Examples
    --------
    >>> split_names("isc, source-only,isc")
    ('isc', 'source-only')
    """
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def choose_seeds(text: str) -> tuple[int, ...]:
    """Read a number of seeds, or the seeds themselves separated by commas.

    Raises
    ------
    InputError
        If it is neither.

    Examples
    --------
    >>> choose_seeds("3"), choose_seeds("1,2"), choose_seeds("2,")
    ((0, 1, 2), (1, 2), (2,))
    """
    numbers = split_names(text)
    if not numbers or not all(part.isdecimal() for part in numbers) or text.strip() == "0":
        raise InputError(
            f"seeds is a number of seeds, at least 1, or seeds with commas such as 0,1 or 2,; got '{text}'"
        )
    if "," in text:
        return tuple(map(int, numbers))
    return tuple(range(int(numbers[0])))


def find_task(name: str, folder: Path, dest: str | None = None) -> Task:
    """Return a task by name; the volumes of `phantom` are drawn into `folder` unless they are there.

    Raises
    ------
    InputError
        If there is no such task; the message lists the tasks.
    """
    if name == PHANTOM:
        return _draw_task(folder.absolute())
    if name not in TASKS:
        raise InputError(
            f"there is no task '{name}'; choose one of {', '.join((*TASKS, PHANTOM, LODO))}, or give your own "
            "volumes with --source, --target and --labels"
        )
    return _with_oracle(TASKS[name], dest)


def own_task(
    source: str,
    target: str,
    labels: str,
    test: str | None = None,
    source_voxel_size: VoxelSize | None = None,
    target_voxel_size: VoxelSize | None = None,
    dest: str | None = None,
) -> Task:
    """Make a task of one's own volumes; see `Task`. Without `test`, the target is scored where it was adapted."""
    task = Task("own", source, target, test or target, labels, None, source_voxel_size, target_voxel_size)
    return task if task.is_transductive else _with_oracle(task, dest)


def _is_fetched(spec: str) -> bool:
    return is_dataset_spec(spec) and not Path(spec).exists()


def _with_oracle(task: Task, dest: str | None) -> Task:
    """Let the oracle learn from the target's labels, if they were fetched with it."""
    if _is_fetched(task.target) and resolve(task.target, dest).mask is not None:
        return replace(task, target_labelled=task.target)
    return task


def _draw_task(folder: Path) -> Task:
    """Draw the volumes of `phantom` into a folder, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (name, (domain, shape)) in enumerate(PHANTOM_VOLUMES.items()):
        paths = folder / f"{name}.tif", folder / f"{name}_mask.tif"
        if all(path.is_file() for path in paths):
            continue
        for path, array in zip(paths, draw_phantom(domain, shape, PHANTOM_SEED + index), strict=True):
            write_sections(path, array, array.shape, array.dtype, domain.voxel_size, overwrite=True)
    return Task(
        PHANTOM,
        source=f"{folder / 'source.tif'}:{folder / 'source_mask.tif'}",
        target=str(folder / "target.tif"),
        test=str(folder / "test.tif"),
        labels=str(folder / "test_mask.tif"),
        target_labelled=f"{folder / 'target.tif'}:{folder / 'target_mask.tif'}",
        minutes=None,
        steps=80,
        patch=192,
        ema_decay=0.95,
    )


@dataclass(frozen=True)
class HeldOut:
    """The volume to score on."""

    volume: Volume
    labels: Volume
    ignore: Volume | None
    """Pixels that are not 0 here are not scored."""


def open_held_out(task: Task, dest: str | None = None) -> HeldOut:
    """Open what a task is scored on, before anything is trained.

    Raises
    ------
    FileError, InputError
        If there are no labels or their shape differs; the message says what to do.
    """
    split = resolve(task.test, dest) if _is_fetched(task.test) else None
    if task.labels is None:
        mask = None if split is None else split.mask
    else:
        mask = resolve(task.labels, dest).mask if _is_fetched(task.labels) else Path(task.labels)
    if mask is None:
        raise FileError(_no_labels(task))
    if split is None:
        volume, ignore = open_volume(task.test, voxel_size=task.target_voxel_size), None
    else:
        volume = open_volume(split.volume, voxel_size=task.target_voxel_size or split.voxel_size)
        ignore = None if split.ignore is None else open_labels(split.ignore)
    labels = open_labels(mask)
    if labels.shape != volume.shape:
        raise InputError(
            f"the labels {labels.name} have shape {labels.shape}, the volume to score {volume.name} "
            f"{volume.shape} (sections, rows, columns); give the labels of that volume"
        )
    return HeldOut(volume, labels, ignore)


def _no_labels(task: Task) -> str:
    name = task.test.partition(":")[0]
    others = [other for other in TASKS.values() if other.target == task.test and other.name != task.name]
    instead = f", or run {others[0].name}, which is scored on {others[0].test}" if others else ""
    return (
        f"{task.test} has no labels here, so {task.name} cannot be scored and nothing was trained; fetch it with "
        f"its labels (mitoda fetch {name} --from DIR){instead}"
    )


def why_not(task: Task, settings: BenchSettings, method: str) -> str:
    """Why a method cannot run on a task; empty where it can."""
    if method in NEED_RESIDUAL and not backbone_named(settings.backbone).has_residual:
        return f"it needs the residual of a pair, which the backbone '{settings.backbone}' does not predict"
    if method_named(method)[0].labels_from != "target" or task.target_labelled is not None:
        return ""
    if task.is_transductive:
        return "it would learn from the labels it is scored on; give a held-out volume with --test"
    return f"it learns from labels of the target, and {task.target} has no labels here"


def plan_training(task: Task, settings: BenchSettings, method: str, seed: int) -> Plan:
    """Plan one training: the same for all methods except for the method itself."""
    oracle = method_named(method)[0].labels_from == "target"
    return Plan(
        source=task.source,
        target=task.target_labelled or task.target if oracle else task.target,
        training=TrainingSettings(
            method=method,
            backbone=settings.backbone,
            steps=task.steps,
            minutes=task.minutes,
            patch=task.patch,
            ema_decay=task.ema_decay,
            seed=seed,
            keep=settings.keep,
        ),
        start=None,  # from scratch, so that no score depends on what other weights were trained on
        source_voxel_size=task.source_voxel_size,
        target_voxel_size=task.target_voxel_size,
        dest=settings.dest,
    )
