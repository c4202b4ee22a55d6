"""Folder of a run: the names of its files, its log, and what may be removed from it."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitoda.errors import FileError
from mitoda.volumes.files import atomic_write, partial_path

KEPT_WEIGHTS = re.compile(r"weights-(\d+)\.safetensors")


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
        """Everything that decides the run; see `training.domains`."""
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
        if self.path.exists() and not self.path.is_dir():
            raise FileError(f"{self.path} is a file; give the name of a folder with --out")
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

    def remove_run(self) -> None:
        """Remove the files of a run, and nothing else."""
        if self.holds_run:
            for path in self._files():
                path.unlink()

    def _files(self) -> list[Path]:
        """Files with the names that a run gives; those that show that there is a run come last."""
        final = (self.weights, self.curves, self.report, self.log, self.state, self.plan)
        files = (*self.kept_weights().values(), *(partial_path(path) for path in final), *final)
        return [path for path in files if path.exists() or path.is_symlink()]

    def append_log(self, record: dict[str, Any]) -> None:
        """Add one line to the log."""
        with self.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(record) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Read the log; a last line cut short by a crash is left out."""
        records = []
        for line in self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []:
            try:
                records.append(json.loads(line))
            except ValueError:
                break
        return records

    def truncate_log(self, step: int) -> None:
        """Drop the lines of the log written after a step."""
        kept = [record for record in self.read_log() if record["step"] <= step]
        with atomic_write(self.log) as partial:
            partial.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
