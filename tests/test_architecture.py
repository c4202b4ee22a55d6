"""The arrows of the design: who may import whom, and what a help text may cost."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mitoda

PACKAGE = Path(mitoda.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def is_type_checking(node: ast.stmt) -> bool:
    """Whether this is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def imports(path: Path, lazy: bool = True) -> set[str]:
    """Names a module imports when it runs; `lazy` counts those inside functions."""
    found = set()

    def walk(nodes: list[ast.stmt]) -> None:
        for node in nodes:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif not is_type_checking(node) and (lazy or not isinstance(node, ast.FunctionDef)):
                for block in ("body", "orelse", "finalbody", "handlers"):
                    walk(getattr(node, block, []))

    walk(ast.parse(path.read_text(encoding="utf-8")).body)
    return found


def within(name: str, package: str) -> bool:
    """Whether a name is a package, or lies in it."""
    return name == package or name.startswith(f"{package}.")


def importers(package: str) -> set[str]:
    """Modules that import a package, anywhere in them."""
    return {
        module for module, path in MODULES.items() if any(within(name, package) for name in imports(path))
    }


@pytest.mark.parametrize("package", ["typer", "rich", "click"])
def test_only_the_command_line_knows_the_terminal(package):
    """typer and rich appear below mitoda.cli and nowhere else."""
    assert all(within(module, "mitoda.cli") for module in importers(package))


def test_nobody_below_imports_the_command_line():
    """Only `python -m mitoda` and the command line itself do."""
    assert all(
        within(module, "mitoda.cli") or module == "mitoda.__main__" for module in importers("mitoda.cli")
    )


def test_nobody_below_the_command_line_prints():
    """No print, and nothing is written to sys.stdout or sys.stderr."""
    for module, path in MODULES.items():
        if within(module, "mitoda.cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Name) and node.id == "print"), module
            assert not (isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr")), module


NO_TORCH = [
    "mitoda.volumes",
    "mitoda.datasets",
    "mitoda.evaluation",
    "mitoda.synthetic",
    "mitoda.plotting",
]


@pytest.mark.parametrize("package", NO_TORCH)
def test_volumes_data_sets_and_metrics_are_written_without_torch(package):
    """Neither at the top of a module nor inside a function."""
    assert not [module for module in importers("torch") if within(module, package)]


def test_importing_them_does_not_bring_torch_along():
    """Nor does any module they import."""
    code = f"import sys, {', '.join(NO_TORCH)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0


def test_the_public_names_are_imported_when_used():
    """`import mitoda` loads neither torch nor matplotlib; each public name is listed, found, and in one order."""
    code = (
        "import sys, mitoda; dir(mitoda); sys.exit(bool({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0
    assert set(mitoda.__all__) == set(mitoda._MODULES) <= set(dir(mitoda))
    for name in mitoda.__all__:
        assert getattr(mitoda, name).__module__.startswith("mitoda.")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mitoda.nothing  # noqa: B018


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        *([*command, "--help"] for command in ([], ["adapt"], ["segment"], ["bench"])),
        ["fetch", "--list"],
    ],
)
def test_help_comes_without_torch(arguments):
    """`mitoda --help` answers at once: torch, skimage and matplotlib are not imported."""
    code = (
        f"import sys; sys.argv = ['mitoda', *{arguments!r}]\n"
        "from mitoda.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'skimage', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mitoda" in done.stdout.lower() or "lucchi" in done.stdout


ROOMS = [
    "cli",
    "benchmark",
    "training",
    "methods",
    "inference",
    "postprocessing",
    "evaluation",
    "plotting",
    "synthetic",
    "datasets",
    "models",
    "data",
    "volumes",
    "errors",
]
"""From top to bottom: a room imports from those below it, never from those above."""


def room_of(module: str) -> str | None:
    """The room a module of the package lies in; None for `mitoda` itself and `mitoda.__main__`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "mitoda" and parts[1] in ROOMS else None


def test_every_module_lies_in_a_room():
    """Directly under mitoda/ stand only the API, the entry point and the errors."""
    assert {m for m in MODULES if room_of(m) is None} == {"mitoda", "mitoda.__main__"}
    assert {p.name for p in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down_the_list_of_rooms(room):
    """Imports inside functions count too."""
    for module, path in MODULES.items():
        if room_of(module) != room:
            continue
        for name in sorted(imports(path)):
            other = room_of(name)
            assert other is None or ROOMS.index(other) >= ROOMS.index(room), f"{module} imports {name}"


def test_imports_make_no_circle():
    """Modules import each other in one direction, inside functions too."""
    graph = {
        module: {name for name in imports(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    assert list(TopologicalSorter(graph).static_order())


def test_nothing_is_unpickled():
    """No pickle module, no numpy.load with pickles, and torch.load only with weights_only=True."""
    for module, path in MODULES.items():
        assert not any(
            within(name, bad) for name in imports(path) for bad in ("pickle", "joblib", "shelve")
        ), module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert any(
                    k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords
                ), module
            assert not (isinstance(node, ast.keyword) and node.arg == "allow_pickle"), module
