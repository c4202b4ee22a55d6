"""Options that several commands have, with one help text each."""

from typing import Annotated

import typer

Lengths = tuple[float, float, float]
"""Z, Y and X as a person gives them, in nanometres."""
VOLUMES, COMPUTING = "Volumes", "Computing"
"""Panels of the help that several commands have."""
DestOption = Annotated[
    str | None, typer.Option(help="Folder of the fetched data sets.", rich_help_panel=VOLUMES)
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=COMPUTING)]
LabelSectionOption = Annotated[
    int | None,
    typer.Option(
        help="Number of the painted section, if --labels is a single section.", rich_help_panel=VOLUMES
    ),
]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=COMPUTING)]
