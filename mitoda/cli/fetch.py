"""`mitoda fetch`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.terminal import say, stderr, stdout, warn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mitoda.datasets import FetchEvent


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="Data sets; --list shows them.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show the known data sets and exit.")] = False,
    source_dir: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Take the files from a folder that has them.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="Take the files from below this address.")
    ] = None,
    dest: Annotated[
        Path | None, typer.Option(help="Where to put them. Default: the cache, or MITODA_CACHE_DIR.")
    ] = None,
) -> None:
    """Download public data sets, verify them and convert them to one layout."""
    from mitoda.datasets import DATASETS, default_dest, fetch_dataset
    from mitoda.datasets.cache import find_dataset

    if listing:
        _list()
        return
    if not names:
        raise typer.BadParameter(f"name at least one of: {', '.join(DATASETS)}", param_hint="NAME")
    for name in names:
        find_dataset(name)
    for name in names:
        dataset = DATASETS[name]
        _draw(fetch_dataset(name, dest, source_dir=source_dir, mirror=mirror))
        say(f"{name}: licence: {dataset.licence}")
        say(f"{name}: cite: {dataset.citation}")
        stdout.print(str((dest or default_dest()) / name), markup=False)


def _list() -> None:
    """One block a data set: eight facts do not fit the columns of a terminal."""
    from mitoda.datasets import DATASETS

    for dataset in DATASETS.values():
        size = (
            " × ".join(f"{length:g}" for length in dataset.voxel_size) + " nm"
            if dataset.voxel_size
            else "unknown"
        )
        note = f" ({dataset.voxel_size_note})" if dataset.voxel_size_note else ""
        stdout.print(f"[bold]{dataset.name}[/bold]")
        facts = {
            "specimen": f"{dataset.organism}, {dataset.tissue}",
            "device": dataset.device,
            "voxel size": f"{size}, section × row × column{note}",
            "splits": ", ".join(
                f"{name} {'×'.join(map(str, split.shape))}{'' if split.labelled else ' without labels'}"
                for name, split in dataset.splits.items()
            ),
            "on disk": f"at most {human_bytes(dataset.size_on_disk)}",
            "licence": dataset.licence,
            "verified": dataset.verification,
            "home": dataset.landing_page,
        }
        for name, value in facts.items():
            stdout.print(f"  {name:11} {value}", markup=False)


def human_bytes(size: int) -> str:
    """Write a number of bytes for a person.

    Examples
    --------
    >>> human_bytes(129_919_357)
    '130 MB'
    """
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _draw(events: "Iterable[FetchEvent]") -> None:
    """Draw what fetching reports: a bar on a terminal, a line for each file elsewhere."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task("", total=None)
        verified: dict[str, list[str]] = {}
        for event in events:
            if event.kind == "verified":
                verified.setdefault(event.message, []).append(event.file)
            elif event.kind == "warning":
                warn(event.message)
            elif event.kind == "converted":
                say(f"{event.dataset}: wrote {event.file}")
            elif event.kind == "done":
                for message, files in verified.items():
                    say(
                        f"{event.dataset}: {files[0] if len(files) == 1 else f'{len(files)} files'}: {message}"
                    )
                say(f"{event.dataset}: {event.message}")
            else:
                progress.update(
                    task, description=f"{event.dataset} {event.file}", completed=event.done, total=event.total
                )
