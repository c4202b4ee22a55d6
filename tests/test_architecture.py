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
    "mitoda.metrics",
    "mitoda.scoring",
    "mitoda.phantom",
    "mitoda.report",
]


@pytest.mark.parametrize("package", NO_TORCH)
def test_volumes_data_sets_and_metrics_are_written_without_torch(package):
    """Neither at the top of a module nor inside a function."""
    assert not [module for module in importers("torch") if within(module, package)]


def test_importing_them_does_not_bring_torch_along():
    """Nor does any module they import."""
    code = f"import sys, {', '.join(NO_TORCH)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent).returncode == 0


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["adapt", "--help"], ["segment", "--help"], ["fetch", "--list"]]
)
def test_help_comes_without_torch(arguments):
    """`mitoda --help` answers at once: torch, scipy and skimage are not imported."""
    code = (
        f"import sys; sys.argv = ['mitoda', *{arguments!r}]\n"
        "from mitoda.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'skimage'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mitoda" in done.stdout.lower() or "lucchi" in done.stdout


def test_imports_make_no_circle():
    """Modules import each other in one direction at load time."""
    graph = {
        module: {name for name in imports(path, lazy=False) if name in MODULES and name != module}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    assert list(TopologicalSorter(graph).static_order())


UP = [
    "mitoda.training",
    "mitoda.run",
    "mitoda.inference",
    "mitoda.segmentation",
    "mitoda.adaptation",
    "mitoda.run_report",
    "mitoda.verdict",
    "mitoda.plausibility",
    "mitoda.bench",
]
FORBIDDEN = {
    "mitoda.errors": ["mitoda"],
    "mitoda.volumes": [
        "mitoda.datasets",
        "mitoda.patches",
        "mitoda.methods",
        "mitoda.networks",
        "mitoda.scoring",
        *UP,
    ],
    "mitoda.datasets": [
        "mitoda.patches",
        "mitoda.methods",
        "mitoda.networks",
        "mitoda.scoring",
        "mitoda.report",
        *UP,
    ],
    "mitoda.metrics": ["mitoda.volumes", "mitoda.datasets", "mitoda.scoring", "mitoda.networks", *UP],
    "mitoda.scoring": ["mitoda.methods", "mitoda.networks", "mitoda.patches", "mitoda.datasets", *UP],
    "mitoda.report": ["mitoda.volumes", "mitoda.datasets", "mitoda.methods", "mitoda.networks", *UP],
    "mitoda.blocks": ["mitoda.volumes", "mitoda.networks", "mitoda.methods", *UP],
    "mitoda.networks": [
        "mitoda.volumes",
        "mitoda.methods",
        "mitoda.patches",
        "mitoda.losses",
        "mitoda.augment",
        *UP,
    ],
    "mitoda.losses": ["mitoda.volumes", "mitoda.methods", "mitoda.patches", *UP],
    "mitoda.discriminators": ["mitoda.volumes", "mitoda.methods", "mitoda.patches", *UP],
    "mitoda.augment": ["mitoda.volumes", "mitoda.methods", "mitoda.patches", "mitoda.networks", *UP],
    "mitoda.patches": ["mitoda.methods", "mitoda.networks", "mitoda.datasets", *UP],
    "mitoda.methods": ["mitoda.volumes", "mitoda.datasets", "mitoda.scoring", "mitoda.metrics", *UP],
    "mitoda.checkpoints": ["mitoda.volumes", "mitoda.methods", "mitoda.patches", *UP],
    "mitoda.inference": [
        "mitoda.methods",
        "mitoda.patches",
        "mitoda.training",
        "mitoda.segmentation",
        "mitoda.adaptation",
    ],
    "mitoda.contours": ["mitoda.volumes", "mitoda.coarse", "mitoda.networks", "mitoda.methods", *UP],
    "mitoda.rings": ["mitoda.volumes", "mitoda.coarse", "mitoda.networks", "mitoda.methods", *UP],
    "mitoda.finishing": ["mitoda.volumes", "mitoda.coarse", "mitoda.networks", "mitoda.methods", *UP],
    "mitoda.training": ["mitoda.adaptation", "mitoda.segmentation", "mitoda.scoring", "mitoda.datasets"],
}
"""Who must not import whom: arrows point down, methods see no volume, metrics know neither files nor networks."""


@pytest.mark.parametrize("package", list(FORBIDDEN))
def test_imports_point_down(package):
    """The arrows of the design."""
    for module, path in MODULES.items():
        if not within(module, package):
            continue
        for name in imports(path):
            bad = [up for up in FORBIDDEN[package] if within(name, up) and not within(name, package)]
            assert not bad, f"{module} imports {name}"


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
