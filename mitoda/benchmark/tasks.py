"""What is benched: a labelled source, a target half to adapt to, and a held-out half with labels to score on."""

from dataclasses import dataclass, replace
from pathlib import Path

from mitoda.datasets import is_dataset_spec, resolve
from mitoda.errors import FileError, InputError
from mitoda.synthetic import SOURCE, TARGET, PhantomDomain, draw_phantom
from mitoda.volumes import Volume, VoxelSize, open_labels, open_volume, write_sections

PHANTOM = "phantom"
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
    """The half that is adapted to; its labels are not opened."""
    test: str
    """The half that is scored."""
    labels: str | None = None
    """Labels of `test`; None takes those fetched with it."""
    target_labelled: str | None = None
    """The adaptation half with its labels, for the oracle alone; None where there are none."""
    source_voxel_size: VoxelSize | None = None
    target_voxel_size: VoxelSize | None = None
    """Of `target` and `test`, nanometres; None is read from table or metadata."""
    minutes: float | None = 30.0
    """Length of a training unless the person gives one; where None, `steps`."""
    steps: int | None = None
    patch: int = 512
    ema_decay: float = 0.995

    @property
    def is_transductive(self) -> bool:
        """Whether the images scored are those adapted to."""
        return self.test == self.target


TASKS: dict[str, Task] = {
    "vnc3-lucchi-s1": Task("vnc3-lucchi-s1", "vnc3", "lucchi:training", "lucchi:testing"),
    "vnc3-lucchi-s2": Task("vnc3-lucchi-s2", "vnc3", "lucchi:testing", "lucchi:training"),
    "mitoem-r-h": Task("mitoem-r-h", "mitoem-r:training", "mitoem-h:training", "mitoem-h:validation"),
    "mitoem-h-r": Task("mitoem-h-r", "mitoem-h:training", "mitoem-r:training", "mitoem-r:validation"),
    PHANTOM: Task(
        PHANTOM,
        source="source.tif:source_mask.tif",
        target="target.tif",
        test="test.tif",
        labels="test_mask.tif",
        target_labelled="target.tif:target_mask.tif",
        minutes=None,
        steps=80,
        patch=192,
        ema_decay=0.95,
    ),
}
"""The tasks by name. Paths of `phantom` are relative to where it is drawn, see `draw_volumes`."""


def find_task(name: str, folder: Path, dest: str | None = None) -> Task:
    """Return a task by name; volumes that are drawn are drawn into `folder`, once.

    Raises
    ------
    InputError
        If there is none of that name; the message lists those there are.
    """
    if name not in TASKS:
        raise InputError(
            f"there is no task '{name}'; choose one of {', '.join(TASKS)}, or give your own volumes with "
            "--source, --target and --labels"
        )
    task = TASKS[name]
    if name == PHANTOM:
        return draw_volumes(task, folder)
    return _with_oracle(task, dest)


def own_task(
    source: str,
    target: str,
    labels: str,
    *,
    test: str | None = None,
    name: str = "own",
    source_voxel_size: VoxelSize | None = None,
    target_voxel_size: VoxelSize | None = None,
    dest: str | None = None,
) -> Task:
    """Make a task of a person's volumes.

    Parameters
    ----------
    labels : str
        A path, or a fetched data set whose labels are meant; of `test`.
    test : str, optional
        The held-out volume; by default the target itself, scored where it was adapted.
    """
    if is_dataset_spec(labels) and not Path(labels).exists():
        split = resolve(labels, dest)
        if split.mask is None:
            raise FileError(f"{labels} has no labels here; give the path of a mask with --labels")
        labels = str(split.mask)
    task = Task(
        name,
        source,
        target,
        test or target,
        labels,
        source_voxel_size=source_voxel_size,
        target_voxel_size=target_voxel_size,
    )
    return task if task.is_transductive else _with_oracle(task, dest)


def _with_oracle(task: Task, dest: str | None) -> Task:
    """Let the oracle learn from the adaptation half's labels, if they were fetched with it."""
    if not is_dataset_spec(task.target) or Path(task.target).exists():
        return task
    has_labels = resolve(task.target, dest).mask is not None
    return replace(task, target_labelled=task.target) if has_labels else task


def draw_volumes(task: Task, folder: Path) -> Task:
    """Draw the volumes of `phantom` into a folder, unless they are there; return the task with their paths."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for index, (name, (domain, shape)) in enumerate(PHANTOM_VOLUMES.items()):
        paths = folder / f"{name}.tif", folder / f"{name}_mask.tif"
        if all(path.is_file() for path in paths):
            continue
        for path, array in zip(paths, draw_phantom(domain, shape, PHANTOM_SEED + index), strict=True):
            write_sections(path, array, array.shape, array.dtype, domain.voxel_size, overwrite=True)

    def placed(spec: str) -> str:
        return ":".join(str(folder / part) for part in spec.split(":"))

    return replace(
        task,
        source=placed(task.source),
        target=placed(task.target),
        test=placed(task.test),
        labels=placed(task.labels or ""),
        target_labelled=placed(task.target_labelled or ""),
    )


@dataclass(frozen=True)
class HeldOut:
    """The volume to score on."""

    volume: Volume
    labels: Volume
    ignore: Volume | None
    """Where it is not 0, pixels are not scored."""


def open_held_out(task: Task, dest: str | None = None) -> HeldOut:
    """Open what a task is scored on, before anything is trained.

    Raises
    ------
    FileError
        If there are no labels; the message says which and what to do.
    """
    ignore = None
    if is_dataset_spec(task.test) and not Path(task.test).exists():
        split = resolve(task.test, dest)
        voxel_size = task.target_voxel_size or split.voxel_size
        volume = open_volume(split.volume, voxel_size=voxel_size)
        mask = Path(task.labels) if task.labels is not None else split.mask
        ignore = open_labels(split.ignore) if split.ignore is not None else None
        if mask is None:
            raise FileError(_no_labels(task))
    else:
        volume = open_volume(task.test, voxel_size=task.target_voxel_size)
        if task.labels is None:
            raise FileError(_no_labels(task))
        mask = Path(task.labels)
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
    instead = f", or bench {others[0].name}, which is scored on {others[0].test}" if others else ""
    return (
        f"{task.test} has no labels here, so {task.name} cannot be scored and nothing was trained; fetch it with "
        f"its labels (mitoda fetch {name} --from DIR){instead}"
    )
