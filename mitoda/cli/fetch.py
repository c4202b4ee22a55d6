"""`mitoda fetch`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitoda.cli.display import command, say, stderr, stdout, warn
from mitoda.cli.stopping import say_how_to_continue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mitoda.datasets import Dataset, FetchEvent, Split


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="Data sets, or NAME:SPLIT; --list shows them.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the known data sets and exit.")] = False,
    source_dir: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Read the files from a local folder.")
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="Download the files from this address instead.")
    ] = None,
    dest: Annotated[
        Path | None, typer.Option(help="Folder to write to. Default: MITODA_CACHE_DIR or the user's cache.")
    ] = None,
) -> None:
    """Download public data sets, verify them and convert them to TIFF."""
    from mitoda.datasets import DATASETS, default_dest, fetch_dataset, find_dataset

    if listing:
        _list()
        return
    if not names:
        raise typer.BadParameter(f"name at least one of: {', '.join(DATASETS)}", param_hint="NAME")
    given = {"--from": source_dir, "--mirror": mirror, "--dest": dest}
    options = [word for option, value in given.items() if value is not None for word in (option, value)]
    again = command("fetch", *names, *options)
    say_how_to_continue(lambda: f"what has arrived is kept, continue with: {again}")
    for dataset in [find_dataset(name) for name in names]:
        _draw(fetch_dataset(dataset, dest, source_dir=source_dir, mirror=mirror))
        say(f"{dataset.name}: licence: {dataset.licence}")
        say(f"{dataset.name}: please cite: {dataset.citation}")
        stdout.print(str((dest or default_dest()) / dataset.name), markup=False)


def _list() -> None:
    """Print a block of facts for each data set."""
    from rich.filesize import decimal

    from mitoda.datasets import DATASETS

    for dataset in DATASETS.values():
        facts = {
            "specimen": f"{dataset.organism}, {dataset.tissue}",
            "microscope": dataset.device,
            "voxel size": _voxel_sizes(dataset),
            "splits": ", ".join(_describe(name, split) for name, split in dataset.splits.items()),
            "download": f"at most {decimal(sum(file.size for file in dataset.files))}",
            "disk space": f"at most {decimal(dataset.size_on_disk)}" if dataset.size_on_disk else "unknown",
            "licence": dataset.licence,
            "verified": dataset.verification,
            "web page": dataset.landing_page,
            "note": dataset.note,
        }
        stdout.print(f"[bold]{dataset.name}[/bold]")
        for name, value in facts.items():
            if value:
                stdout.print(f"  {name:11} {value}", markup=False)


def _voxel_sizes(dataset: "Dataset") -> str:
    """Write the sizes of all splits, and how certain they are."""
    sizes = dict.fromkeys(split.voxel_size for split in dataset.splits.values())
    known = [f"{' × '.join(f'{length:g}' for length in size)} nm" for size in sizes if size]
    words = " or ".join([*known, *["unknown"] * (None in sizes)])
    axes = " (section × row × column)" if known else ""
    return f"{words}{axes}" + (f"; {dataset.voxel_size_note}" if dataset.voxel_size_note else "")


def _describe(name: str, split: "Split") -> str:
    """Write a split's name, its shape if known, and whether it has no labels."""
    shape = f" {'×'.join(map(str, split.shape))}" if split.shape else ""
    return f"{name}{shape}{'' if split.labels else ' without labels'}"


def _draw(events: "Iterable[FetchEvent]") -> None:
    """Draw a bar on a terminal, and print a line for what is finished."""
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
                description = f"{event.dataset} {event.file}"
                progress.update(task, description=description, completed=event.done, total=event.total)
