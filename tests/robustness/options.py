"""Every numeric option of every command, found in the commands themselves, with values that nobody means."""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from typer.models import OptionInfo, ParameterInfo

from mitoda.cli.app import app
from mitoda.methods import METHODS
from tests.robustness.judging import Case

VALUES = ("0", "-1", "nan", "inf", "-inf", "1e308", "1" + "0" * 22, "")
NEVER = ("nan", "inf", "-inf", "")
"""Values that no option can mean."""
LONG = {"demo", "bench"}
"""Commands that train on volumes of their own: only values that nothing can mean are tried."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One argument or option of a command."""

    flag: str
    """Empty for an argument."""
    kind: Any
    """Its type without None."""
    required: bool

    @property
    def numbers(self) -> int:
        """How many numbers an option takes; 0 for other options and arguments."""
        kinds = typing.get_args(self.kind) or (self.kind,)
        return len(kinds) if self.flag and set(kinds) <= {int, float} else 0


def commands() -> dict[str, list[Parameter]]:
    """The parameters of each command by name."""
    return {
        (one.name or one.callback.__name__): list(parameters(one.callback))
        for one in app.registered_commands
        if one.callback is not None
    }


def parameters(command: Callable[..., object]) -> Iterator[Parameter]:
    """The arguments and options of a command's function."""
    hints = typing.get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, *extras = typing.get_args(hints[name]) or (hints[name], None)
        how = next((one for one in extras if isinstance(one, ParameterInfo)), None)
        if how is None:
            continue
        alternatives = [one for one in typing.get_args(kind) if one is not type(None)]
        if len(alternatives) == 1 and type(None) in typing.get_args(kind):
            kind = alternatives[0]
        flags = [flag for flag in how.param_decls or () if flag.startswith("--")] or [
            f"--{name.replace('_', '-')}"
        ]
        is_option = isinstance(how, OptionInfo)
        yield Parameter(flags[0] if is_option else "", kind, parameter.default is inspect.Parameter.empty)


def base_arguments(name: str, files: dict[str, Path], output: Path) -> list[object]:
    """Arguments with which a command works; for commands that are not listed, a file for each required parameter."""
    stack, labels, weights = files["stack"], files["labels"], files["weights"]
    known: dict[str, list[object]] = {
        "adapt": [
            "--target",
            stack,
            "--source",
            f"{stack}:{labels}",
            "--out",
            output / "run",
            "--from-scratch",
        ],
        "segment": [stack, "-o", output / "mask.tif", "--weights", weights, "--overwrite"],
        "suggest": [stack, "-o", output / "few.tif", "--weights", weights, "--overwrite"],
        "score": [labels, labels],
        "inspect": [stack],
        "weights": [],
        "fetch": ["--list"],
        "demo": ["--out", output / "demo"],
        "bench": ["phantom", "--out", output / "bench", "--methods", "source-only"],
    }
    if name in known:
        return known[name]
    arguments: list[object] = []
    for parameter in commands()[name]:
        if parameter.required:
            value = output / "result.tif" if parameter.flag in ("--output", "--out") else files["labels"]
            arguments += [parameter.flag, value] if parameter.flag else [value]
    return arguments


def option_cases(files: dict[str, Path], output: Path) -> Iterator[Case]:
    """Each numeric option with each value."""
    for name, found in commands().items():
        for parameter in found:
            for value in VALUES if parameter.numbers else ():
                must_fail = value in NEVER
                if name in LONG and not must_fail:
                    continue
                base = base_arguments(name, files, output)
                if name == "adapt":
                    base += ["--overwrite", *_shortest(parameter.flag)]
                given = [parameter.flag, *[value] * parameter.numbers]
                yield Case(f"{name} {' '.join(given)}", [name, *base, *given], must_fail)


def _shortest(flag: str) -> list[object]:
    """Options of the shortest training, without the one that is tried."""
    short = {"--steps": 1, "--patch": 128, "--batch-size": 1, "--workers": 1}
    return [
        part
        for option, number in short.items()
        if option != flag and (option, flag) != ("--steps", "--minutes")
        for part in (option, number)
    ]


def setting_cases(files: dict[str, Path], output: Path) -> Iterator[Case]:
    """Each numeric setting of each method with each value; none is ever trained with."""
    for method, cls in METHODS.items():
        hints = typing.get_type_hints(cls.Settings)
        for setting in dataclasses.fields(cls.Settings):
            if not {int, float} & {hints[setting.name], *typing.get_args(hints[setting.name])}:
                continue
            for value in VALUES:
                yield Case(
                    f"adapt --method {method} --set {setting.name}={value}",
                    [
                        "adapt",
                        "--target",
                        "missing.tif",
                        "--method",
                        method,
                        "--set",
                        f"{setting.name}={value}",
                    ],
                    must_fail=True,
                    mentions=setting.name if value in NEVER else "",
                )
