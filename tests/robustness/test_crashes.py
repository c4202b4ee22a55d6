"""Power that fails at any file operation: the next call ends with what an undisturbed one makes, and leaves nothing."""

import builtins
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from mitoda.inference.segment import segment
from mitoda.inference.settings import SegmentSettings
from mitoda.models.weights import load_weights
from mitoda.training.adapt import adapt
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import Plan, TrainingSettings, load_plan
from tests.inference.test_segment import local, read, volume_of

OPERATIONS = {
    os: ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "fsync", "open"),
    io: ("open",),
    builtins: ("open",),
}


class PowerFailure(BaseException):
    """The process is gone, and with it all that would have cleaned up."""


class Power:
    """Counts operations on files below a folder, and fails at one of them and all later ones."""

    def __init__(self, folder: Path, fails_at: int) -> None:
        self.folder, self.fails_at = str(folder), fails_at
        self.count = 0
        self.last = ""

    def use(self, name: str, arguments: tuple[object, ...]) -> None:
        """Count an operation."""
        target = arguments[0]
        is_here = name == "fsync" or (
            isinstance(target, str | os.PathLike) and os.fspath(target).startswith(self.folder)
        )
        if is_here:
            self.count += 1
            if self.count <= self.fails_at:
                self.last = f"{name} {target}"
        if is_here and self.count >= self.fails_at:
            raise PowerFailure(self.last)


@contextmanager
def power(folder: Path, fails_at: int) -> Iterator[Power]:
    """Let the power fail at an operation within the block."""
    supply = Power(folder, fails_at)

    def guarded(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            supply.use(name, arguments)
            return original(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for module, names in OPERATIONS.items():
            for name in names:
                patch.setattr(module, name, guarded(name, getattr(module, name)))
        with suppress(PowerFailure):
            yield supply


def crash_points(work: Path, run: Callable[[], object], every: int) -> Iterator[Power]:
    """Run in an empty folder with a power failure at one operation after the other, until none happens."""
    fails_at = 1
    while True:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with power(work, fails_at) as supply:
            run()
        if supply.count < fails_at:
            return
        yield supply
        fails_at += every


EVERY = [pytest.param(3, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
"""Of so many points one is tried."""


@pytest.mark.parametrize("every", EVERY)
@pytest.mark.parametrize("options", [{}, {"min_size": 12, "snap": True}], ids=["one pass", "two passes"])
def test_segment_survives_a_power_failure_at_every_file_operation(tmp_path, options, every):
    """With --resume, mask and probability map equal those of an undisturbed run, and no other file is left."""
    volume, work = volume_of(4), tmp_path / "work"

    def run(resume: bool = False) -> None:
        settings = SegmentSettings(
            output=work / "mask.tif", probability=work / "p.tif", resume=resume, **options
        )
        for _ in segment(volume, local(), settings):
            pass

    work.mkdir()
    run()
    whole = {path.name: read(path) for path in work.iterdir()}
    points = 0
    for supply in crash_points(work, run, every):
        points += 1
        run(resume=True)
        assert {path.name for path in work.iterdir()} == set(whole), supply.last
        for name, expected in whole.items():
            assert np.array_equal(read(work / name), expected), supply.last
    assert points > 7 / every


@pytest.mark.parametrize("every", [pytest.param(13, id="some", marks=pytest.mark.slow), EVERY[1]])
def test_adapt_survives_a_power_failure_at_every_file_operation(files, tmp_path, every):
    """The run is resumed, or begun again where it had no checkpoint; its weights equal those of an undisturbed one."""
    work = tmp_path / "work"
    plan = Plan(
        source=f"{files['stack']}:{files['labels']}",
        target=str(files["stack"]),
        training=TrainingSettings(
            steps=2,
            patch=128,
            batch_size=1,
            workers=1,
            keep=1,
            method="source-only",
            checkpoint_minutes=0.001,
        ),
        start=None,
    )

    def run() -> None:
        folder = RunFolder(work / "run")
        resume = folder.can_resume
        for _ in adapt(
            load_plan(folder) if resume else plan, folder.path, device="cpu", resume=resume, overwrite=True
        ):
            pass

    def weights() -> dict[str, torch.Tensor]:
        return dict(load_weights(work / "run" / "weights.safetensors")[0].state_dict())

    work.mkdir()
    run()
    whole, names = weights(), {path.name for path in (work / "run").iterdir()}
    points = 0
    for supply in crash_points(work, run, every):
        points += 1
        run()
        assert all(torch.equal(tensor, whole[name]) for name, tensor in weights().items()), supply.last
        assert {path.name for path in (work / "run").iterdir()} == names, supply.last
    assert points > 26 / every


def test_an_earlier_run_stays_until_the_new_one_has_a_checkpoint(files, tmp_path):
    """--overwrite, and the power fails while the first checkpoint is written: the old run can be resumed."""
    folder = Path(shutil.copytree(files["run"], tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    plan = load_plan(RunFolder(folder))

    def run() -> None:
        for _ in adapt(plan, folder, device="cpu", overwrite=True):
            pass

    reached = ""
    for fails_at in range(2, 100, 3):
        with power(folder, fails_at) as supply:
            run()
        reached = supply.last
        if reached.startswith("unlink") and Path(reached.split()[-1]).name in before:
            break
        assert {name: (folder / name).read_bytes() for name in before} == before
    assert "unlink" in reached
