"""Folder of a run: the names of its files, its log, and what may be removed from it."""

import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from mitoda.errors import FileError
from mitoda.volumes.files import atomic_write, check_regular, partial_paths
from mitoda.volumes.records import parse_record

KEPT_WEIGHTS = re.compile(r"weights-(\d+)\.safetensors")


@dataclass(frozen=True)
class LogLine:
    """One record of the log, as far as it is read back."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "ignore"}

    step: Annotated[int, Field(ge=0)]
    losses: dict[str, float] = field(default_factory=dict)
    selection: dict[str, float | None] = field(default_factory=dict)
    """Label-free scores of kept weights."""
    held_back: dict[str, float | None] = field(default_factory=dict)
    """F1 on the held-back part of painted labels, and the mask settings chosen there."""


@dataclass(frozen=True)
class RunFolder:
    """Files of one run of `mitoda adapt`.

    Examples
    --------
    >>> RunFolder(Path("run")).kept_path(200).name
    'weights-200.safetensors'
    """

    path: Path

    @property
    def plan(self) -> Path:
        """Everything that decides the run; see `training.settings.Plan`."""
        return self.path / "run.json"

    @property
    def state(self) -> Path:
        """Checkpoint to resume from."""
        return self.path / "state.pt"

    @property
    def log(self) -> Path:
        """One JSON record a line: losses, rounds, label-free scores of kept weights."""
        return self.path / "log.jsonl"

    @property
    def weights(self) -> Path:
        """Averaged weights of the last checkpoint."""
        return self.path / "weights.safetensors"

    @property
    def curves(self) -> Path:
        """Picture of the losses."""
        return self.path / "curves.png"

    @property
    def report(self) -> Path:
        """Page that describes the run."""
        return self.path / "report.html"

    def kept_path(self, step: int) -> Path:
        """Averaged weights kept at a step."""
        return self.path / f"weights-{step}.safetensors"

    def kept_weights(self) -> dict[int, Path]:
        """Return the kept weights by step, in order."""
        found = {
            int(match[1]): path
            for path in self.path.glob("weights-*.safetensors")
            if (match := KEPT_WEIGHTS.fullmatch(path.name))
        }
        return dict(sorted(found.items()))

    @property
    def holds_run(self) -> bool:
        """Whether there is a run, complete or not."""
        return any(path.exists() for path in (self.plan, self.state, self.log))

    @property
    def can_resume(self) -> bool:
        """Whether there is a run with a checkpoint."""
        return self.plan.is_file() and self.state.is_file()

    def check_free(self, overwrite: bool) -> None:
        """Refuse a folder that a new run must not use; change nothing.

        Parameters
        ----------
        overwrite : bool
            Whether an earlier run may be replaced. Files that no run wrote are never replaced.

        Raises
        ------
        FileError
            If it is no folder, holds a run that may not be replaced, or holds other files with the names of a run's.
        """
        if (self.path.exists() or self.path.is_symlink()) and not self.path.is_dir():
            raise FileError(f"{self.path} is a file; give the name of a folder with --out")
        self.check_files()
        if self.holds_run and not overwrite:
            raise FileError(
                f"{self.path} holds a run already; resume it with 'mitoda adapt --resume {self.path}', give another "
                "folder with --out, or replace the run with --overwrite"
            )
        found = self._files()
        if found and not self.holds_run:
            raise FileError(
                f"{self.path} holds {found[0].name} but no run of mitoda, and a run would replace that file; give "
                "another folder with --out"
            )

    def check_files(self) -> None:
        """Refuse links, folders and pipes where a run has files: a run makes none, and would write through them.

        Raises
        ------
        FileError
            Names the first of them.
        """
        for path in self._files():
            if path.is_symlink():
                raise FileError(f"{path} is a link, which a run does not make; put the file itself there")
            check_regular(path)

    def start(self) -> "RunFolder":
        """Make a folder in this one for the first checkpoint of a run, until `begin`."""
        made = RunFolder(self.path / ".starting")
        made.path.mkdir()
        return made

    def begin(self, start: "RunFolder") -> None:
        """Replace the run, if there is one, by the first checkpoint of another; nothing else is removed."""
        if self.holds_run:
            for path in self._files():
                path.unlink()
        for path in (start.state, start.weights, start.plan):  # the state shows whose the weights are
            path.replace(self.path / path.name)
        start.path.rmdir()

    def remove_leftovers(self) -> None:
        """Remove what a killed run was writing."""
        for path in self._partial_files():
            path.unlink()
        shutil.rmtree(self.path / ".starting", ignore_errors=True)

    def _files(self) -> list[Path]:
        """Files with the names that a run gives; those that show that there is a run come last."""
        final = (self.weights, self.curves, self.report, self.log, self.state, self.plan)
        files = (*self.kept_weights().values(), *self._partial_files(), *final)
        return [path for path in files if path.exists() or path.is_symlink()]

    def _partial_files(self) -> list[Path]:
        """What a killed run was writing."""
        names = (self.weights, self.curves, self.report, self.log, self.state, self.plan)
        kept = {
            self.path / match[0]
            for path in self.path.glob("*.partial")
            if (match := KEPT_WEIGHTS.match(path.name))
        }
        return [partial for path in (*names, *kept) for partial in partial_paths(path)]

    def append_log(self, record: dict[str, Any]) -> None:
        """Add one line to the log."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(self.log, flags, 0o666), "w", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Read the log; a last line cut short by a crash is left out.

        Raises
        ------
        FileError
            If a line is not one that a run writes.
        """
        if not self.log.exists():
            return []
        check_regular(self.log)
        lines = self.log.read_bytes().splitlines(keepends=True)
        whole = lines[:-1] if lines and not lines[-1].endswith(b"\n") else lines
        for number, line in enumerate(whole, 1):
            parse_record(line, LogLine, f"line {number} of {self.log}")
        return [json.loads(line) for line in whole]

    def truncate_log(self, step: int) -> None:
        """Drop the lines of the log written after a step."""
        kept = [record for record in self.read_log() if record["step"] <= step]
        with atomic_write(self.log) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
