"""What fetching reports while it runs; the command line draws it."""

from dataclasses import dataclass
from typing import Literal

EventKind = Literal["checking", "file", "progress", "verified", "converting", "converted", "warning", "done"]


@dataclass(frozen=True)
class FetchEvent:
    """One thing that happened.

    - `checking`: a split converted earlier is compared with its record, which takes a while for gigabytes.
    - `file`: a file is being looked for; `done` of `total` files came before it.
    - `progress`: `done` of `total` bytes of `file` have arrived; `total` is None where the server does not
      say.
    - `verified`: `file` is here; `message` says what was checked, and against what.
    - `converting`: `done` of `total` sections of `file` (a product, such as `training/volume.tif`) are
      written.
    - `converted`: `file` is complete under its name.
    - `warning`: something a person should know, in `message`.
    - `done`: the data set is ready; `message` says whether anything had to be done.
    """

    kind: EventKind
    dataset: str
    message: str = ""
    file: str = ""
    done: int = 0
    total: int | None = None
    unit: Literal["", "B", "files", "sections"] = ""
