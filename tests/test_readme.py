"""The READMEs: their commands exist, with the options they name, and their Python code runs."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
import tifffile
import typer

from mitoda.cli.app import app
from mitoda.synthetic import TARGET, draw_phantom
from mitoda.volumes import open_labels, write_sections

ROOT = Path(__file__).parent.parent
READMES = [
    "README.md",
    "weights/README.md",
    "tests/benchmarks/README.md",
    "mitoda/methods/README.md",
    "mitoda/volumes/README.md",
    "mitoda/postprocessing/README.md",
    "mitoda/evaluation/README.md",
]


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


def test_python_code_of_the_readme_runs_as_written(tmp_path, monkeypatch, capsys):
    """In a folder with a stack.tif; it prints events and one mean probability a section."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert len(blocks) == 1
    image, _ = draw_phantom(TARGET, (2, 96, 96), 1)
    write_sections(tmp_path / "stack.tif", image, image.shape, image.dtype, None)
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks[0], "README.md", "exec"), {})  # the README's own words
    printed = capsys.readouterr().out
    assert "Segmented(sections=2" in printed
    assert [0 <= float(line) <= 1 for line in printed.splitlines()[-2:]] == [True, True]
    assert open_labels(tmp_path / "mask.tif").voxel_size == (5, 5, 5)
    assert tifffile.imread(tmp_path / "mask.tif").shape == (2, 96, 96)
