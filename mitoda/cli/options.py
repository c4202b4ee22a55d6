"""Options that several commands have, with one help text each."""

from typing import Annotated

import typer

Lengths = tuple[float, float, float]
"""Z, Y and X as a person gives them, in nanometres."""
DestOption = Annotated[str | None, typer.Option(help="Where the fetched data sets lie.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
LabelSectionOption = Annotated[
    int | None, typer.Option(help="Number of the painted section, if --labels is a single section.")
]
PrecisionOption = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
