"""The READMEs: every command in them is one that there is, with options that it has."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import typer

from mitoda.cli import app

ROOT = Path(__file__).parent.parent
READMES = ["README.md", "weights/README.md", "tests/benchmarks/README.md", "mitoda/methods/README.md"]


def commands() -> list[str]:
    """What stands behind a `$` in any of them, each part of a chain on its own."""
    lines = []
    for name in READMES:
        for line in re.findall(r"^\$ (.+)$", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE):
            lines += [part.strip() for part in line.split("&&")]
    return sorted(set(lines))


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("mitoda ")])
def test_commands_of_the_readmes_are_understood(line):
    """They are parsed as the command line parses them; nothing is run."""
    name, *arguments = shlex.split(line)[1:]
    command = typer.main.get_command(app).commands[name]
    command.make_context(name, arguments)


def test_modules_of_the_readmes_are_there():
    """`python -m tests.benchmarks.…` names files of the checkout."""
    named = [shlex.split(line)[2] for line in commands() if line.startswith("python -m ")]
    assert named
    assert all(importlib.util.find_spec(name) for name in named)
