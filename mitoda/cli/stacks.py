"""Segment one or many stacks: their input and output files, and a table of results."""

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from mitoda.cli.display import explain, print_table, say, warn
from mitoda.errors import FileError, InputError
from mitoda.volumes.address import split_key


@dataclass(frozen=True)
class Job:
    """One stack, and the files written about it."""

    source: str
    output: Path
    probability: Path | None = None
    instances: Path | None = None
    report: Path | None = None


def plan_jobs(
    inputs: Sequence[str],
    output: Path | None,
    folder: Path | None,
    probability: Path | None,
    instances: Path | None,
    report: Path | None,
) -> list[Job]:
    """Say where the files of each stack go.

    One stack without a folder has the names given. With a folder, files are named after their stack, and `probability`,
    `instances` and `report` are folders too. Patterns with `*` that name no file themselves are expanded.

    Raises
    ------
    typer.BadParameter
        If the arguments contradict each other.
    InputError, FileError
        If a pattern matches nothing, a folder is missing, or two stacks have the same name.
    """
    sources = [one for text in inputs for one in _expand(text)]
    if folder is None:
        if len(sources) > 1:
            raise typer.BadParameter(
                f"{len(sources)} stacks are given; say where their masks go with --output-folder"
            )
        if output is None:
            raise typer.BadParameter("give the name of the mask with -o, or a folder with --output-folder")
        return [Job(sources[0], output, probability, instances, report)]
    if output is not None:
        raise typer.BadParameter("give either -o or --output-folder")
    for one in (folder, probability, instances, report):
        if one is not None and not one.is_dir():
            raise FileError(f"the folder {one} does not exist; create it first: mkdir -p {one}")
    names: dict[str, str] = {}
    for source in sources:
        name = _name(source)
        if name in names:
            raise InputError(
                f"{names[name]} and {source} would both be written to {folder / name}.tif; rename one of them"
            )
        names[name] = source
    return [
        Job(
            source,
            folder / f"{name}.tif",
            None if probability is None else probability / f"{name}.tif",
            None if instances is None else instances / f"{name}.tif",
            None if report is None else report / f"{name}.html",
        )
        for name, source in names.items()
    ]


def _expand(text: str) -> list[str]:
    pattern, key = split_key(text)
    if pattern.exists() or not glob.has_magic(str(pattern)):
        return [text]
    found = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 - absolute patterns too
    if not found:
        raise FileError(f"no file matches {pattern}; check the path")
    return [f"{one}:{key}" if key else one for one in found]


def _name(source: str) -> str:
    """Name of a stack without folder and extension; `lucchi-training` of a data set, `stack-raw` of `stack.h5:/raw`."""
    path, key = split_key(source)
    name = path.name
    for ending in (".ome.zarr", ".zarr", ".nii.gz"):
        name = name.removesuffix(ending)
    if name == path.name and not path.is_dir():
        name = path.stem
    return "-".join([name, *(part for part in key.split("/") if part)]).replace(":", "-")


def run_jobs(jobs: Sequence[Job], work: Callable[[Job], str]) -> None:
    """Do the work of each job. Of several, go on past one that fails, end with a table, and exit with 1 if any failed.

    Parameters
    ----------
    work : callable
        Returns what to say about a job in the table.
    """
    if len(jobs) == 1:
        work(jobs[0])
        return
    results: list[tuple[str, str]] = []
    failed = 0
    for number, job in enumerate(jobs, 1):
        say(f"{job.source} ({number} of {len(jobs)})")
        try:
            results.append((Path(job.source).name, work(job)))
        except Exception as error:
            message = explain(error)
            if message is None:  # a defect of ours: the traceback is what helps
                raise
            failed += 1
            results.append((Path(job.source).name, f"failed: {message}"))
            warn(f"{job.source}: {message}")
    _print(results)
    if failed:
        say(f"{failed} of {len(jobs)} stacks failed")
        raise typer.Exit(1)


def _print(results: list[tuple[str, str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("stack", "result")
    for source, result in results:
        table.add_row(escape(source), escape(result))
    print_table(table)
