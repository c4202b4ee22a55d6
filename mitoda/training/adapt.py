"""Adapt to a target: everything from a plan to weights, checks and a report, as a stream of events."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from mitoda.data.pairs import Pairs
from mitoda.errors import InputError
from mitoda.inference.checks import oblong_pixels
from mitoda.inference.voxel_size import search_voxel_size
from mitoda.methods import Arithmetic, method_named
from mitoda.models.device import choose_bfloat16, choose_device, describe_device
from mitoda.models.model import load_model
from mitoda.models.weights import load_weights, save_weights
from mitoda.training.domains import Prepared, choose_start, open_domain, prepare
from mitoda.training.loop import Ended, RoundBegun, Saved, StepsDone, train
from mitoda.training.painting import GOOD_START, HeldBackScore, score_start
from mitoda.training.report import Checks, check_result, draw_curves, write_run_report
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan, TrainingSettings
from mitoda.training.state import Run
from mitoda.volumes.lock import locked
from mitoda.volumes.voxel_size import known_voxel_size
from mitoda.volumes.wrappers import sample_box


@dataclass(frozen=True)
class Started:
    """Volumes are open and the network is built; training begins."""

    plan: Plan
    """As `run.json` will hold it."""
    prepared: Prepared
    device: str
    bfloat16: bool


@dataclass(frozen=True)
class Notice:
    """A message for the user."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class Finished:
    """The run is over; its weights are on disk unless it was stopped before its first step."""

    step: int
    seconds: float
    complete: bool
    weights: Path
    checks: Checks | None
    """Of a complete run."""
    report: Path | None


Event = Started | Notice | StepsDone | RoundBegun | HeldBackScore | Saved | Finished


def adapt(
    plan: Plan,
    folder: Path | str,
    *,
    device: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train a network for a target, check it without labels and write a report.

    Nothing happens until the events are iterated. The last one is `Finished`.

    Parameters
    ----------
    plan : Plan
        To resume: what `load_plan` read, perhaps extended.
    folder : Path or str
        Of the run; made where it is missing. It gets the files that `RunFolder` names.
    device : str
        See `choose_device`.
    resume : bool
        Continue the run in `folder` from its last checkpoint.
    overwrite : bool
        Replace an earlier run in `folder`, after the first step of the new one.
    should_stop : callable
        Asked before every step; True saves and ends the run.

    Raises
    ------
    InputError, FileError
        If the plan cannot be carried out, or the folder holds something else.
    MitodaError
        If training diverges.

    Examples
    --------
    >>> for event in adapt(Plan("stack.tif"), "run"):  # doctest: +SKIP
    ...     print(event)
    """
    run_folder = RunFolder(Path(folder))
    with ExitStack() as held:
        if resume:
            run_folder.check_files()
            held.enter_context(locked(run_folder.plan))
            run_folder.remove_leftovers()
        else:
            run_folder.check_free(overwrite)
        claim = partial(_claim, run_folder, held, resume, overwrite)
        yield from _adapt(plan, run_folder, device, resume, should_stop, claim)


def _adapt(
    plan: Plan,
    run_folder: RunFolder,
    device: str,
    resume: bool,
    should_stop: Callable[[], bool],
    claim: Callable[[Plan, Run], None],
) -> Iterator[Event]:
    """Adapt; `claim` is called after the first step."""
    chosen = choose_device(device)
    arithmetic = Arithmetic(chosen, choose_bfloat16(plan.precision, chosen))
    if not resume:
        plan = replace(plan, start=choose_start(plan))
        found = _search_voxel_size(plan, chosen)
        if found is not None:
            plan, notice = found
            yield notice
    prepared = prepare(plan)
    if not resume:
        _check_start(prepared.start, run_folder)
        if (planned := _plan_rounds(plan, prepared, chosen)) is not None:
            plan, notice = planned
            yield notice
    run = Run(
        plan.training,
        arithmetic,
        prepared.info,
        run_folder,
        start=prepared.start,
        source_free=prepared.source is None,
        painted=prepared.painted,
        thickness_nm=known_voxel_size(prepared.stack)[0],
    )
    if resume:
        run.load()
    yield Started(plan, prepared, describe_device(chosen), arithmetic.bfloat16)
    for name, pairs in prepared.domains():
        yield from _warnings(name, pairs, plan, prepared)
    began = partial(claim, plan, run)
    for event in train(run, prepared.source, prepared.target, should_stop=should_stop, on_first_step=began):
        if isinstance(event, Ended):
            yield _finish(event, plan, prepared, run_folder, chosen)
            return
        if isinstance(event, Saved) and not should_stop():  # at a stop there is no time for pictures
            draw_curves(run_folder)
        yield event


def _plan_rounds(plan: Plan, prepared: Prepared, device: torch.device) -> tuple[Plan, Notice] | None:
    """Decide, with painted labels, whether the rest of the stack is labelled too, and from the beginning or later."""
    training, painted = plan.training, prepared.painted
    is_open = training.method == TrainingSettings.method and "supervised_share" not in training.assignments
    if painted is None or prepared.start is None or not is_open:
        return None
    if prepared.target.within is None:
        chosen = {"supervised_share": "1"}
        text = "sections are large, so training uses only the painted places"
    else:
        start = load_model(prepared.start, device, plan.precision)
        found = score_start(start, prepared.target.volume, painted)
        text = f"the starting weights have an F1 of {found:.3f} on the painted places, "
        if found < GOOD_START:
            return plan, Notice(
                text + "so training uses the paint first and labels the rest of the stack later"
            )
        chosen = {"supervised_share": "0", "rounds": "2"}
        text += "so training also uses the rest of the stack, as they label it"
    assignments = {**chosen, **training.assignments}
    return replace(plan, training=replace(training, assignments=assignments)), Notice(text)


def _check_start(start: Path | None, folder: RunFolder) -> None:
    """Refuse to replace the run that a new one starts from."""
    if start is not None and start.resolve().parent == folder.path.resolve():
        raise InputError(
            f"{folder.path} holds the weights to start from; give another folder for the new run"
        )


def _claim(folder: RunFolder, held: ExitStack, resume: bool, overwrite: bool, plan: Plan, run: Run) -> None:
    """Make the folder hold this run, once it is known to begin; an earlier run is replaced by its first checkpoint."""
    if resume:
        plan.save(folder)
        return
    folder.path.mkdir(parents=True, exist_ok=True)
    held.enter_context(locked(folder.plan))
    folder.check_free(overwrite)  # another run may have begun there meanwhile
    folder.remove_leftovers()
    start = folder.start()
    run.save(start)
    plan.save(start)
    folder.begin(start)


def _search_voxel_size(plan: Plan, device: torch.device) -> tuple[Plan, Notice] | None:
    """Search the target's voxel size with the weights to start from, if neither plan nor metadata have it."""
    if plan.start is None or plan.target_voxel_size is not None:
        return None
    target = open_domain(plan.target, labelled=False, invert=plan.invert_target, dest=plan.dest).volume
    if target.voxel_size is not None:
        return None
    model = load_model(plan.start, device, plan.precision)
    found = search_voxel_size(sample_box(target), model)
    return replace(plan, target_voxel_size=found.voxel_size), Notice(found.sentence)


def _warnings(name: str, pairs: Pairs, plan: Plan, prepared: Prepared) -> Iterator[Notice]:
    """Warn about sections smaller than a patch, and pairs that are not as far apart as the geometry."""
    rows, columns = (side / factor for side, factor in zip(pairs.volume.shape[1:], pairs.scale, strict=True))
    if min(rows, columns) < plan.training.patch:
        yield Notice(
            f"sections of the {name} are {rows:.0f} × {columns:.0f} working pixels, smaller than a patch of "
            f"{plan.training.patch}; they are mirrored at their edges. A smaller --patch trains faster",
            is_warning=True,
        )
    size = pairs.volume.voxel_size
    if size is not None and (warning := oblong_pixels(size)):
        yield Notice(f"{name}: {warning}", is_warning=True)
    spacing = prepared.info.spacing
    if pairs.stride == 0:
        yield Notice(
            f"the {name} is a single section, paired with itself; it has no neighbours to learn from",
            is_warning=True,
        )
    elif size is not None:
        apart = pairs.stride * size[0]
        if not 0.5 <= apart / spacing <= 2:
            yield Notice(f"pairs of the {name} are {apart:g} nm apart, not {spacing:g} nm", is_warning=True)


def _keep_start(ended: Ended, start: Path, folder: RunFolder) -> None:
    """Make the weights that the run began from its result; those it ended with are kept beside them."""
    save_weights(folder.kept_path(ended.step), *load_weights(folder.weights))
    network, info = load_weights(start)
    notes = {
        **info.notes,
        "kept": f"the result of {folder.path.name} after {ended.step} steps was less credible",
    }
    save_weights(folder.weights, network, replace(info, notes=notes))


def _finish(
    ended: Ended, plan: Plan, prepared: Prepared, folder: RunFolder, device: torch.device
) -> Finished:
    """Check the result and write the report; without a step there is nothing to write."""
    checks, report = None, None
    if ended.complete:
        checks = check_result(plan, prepared, folder.weights, device)
        adapts = method_named(plan.training.method)[0].needs_target and prepared.painted is None
        if adapts and prepared.start is not None and checks.is_worse:
            _keep_start(ended, prepared.start, folder)
            checks = replace(checks, kept_start=True)
        report = write_run_report(plan, prepared, folder, ended, device, checks)
    return Finished(ended.step, ended.seconds, ended.complete, folder.weights, checks, report)
