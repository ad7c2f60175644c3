"""The shape of the repository: who prints, what starts quickly. Imports: see `make lint`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ifspace"
SOURCES = sorted(PACKAGE.rglob("*.py"))

EXITS = frozenset({"exit", "quit", "sys.exit", "os._exit", "SystemExit"})
PRINTS = frozenset({"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"})
HEAVY = frozenset({"torch", "triton", "ortools", "matplotlib"})
SLOW_TO_START = HEAVY | {"numba", "sympy", "pyarrow", "numpy", "joblib", "pandas"}
LIGHT_ROOMS = frozenset({"catalogue", "enumerate", "show"})


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def output_faults(source: str, path: str) -> list[str]:
    """Calls that print or exit, outside cli/, the rooms' commands and a program's main()."""
    parts = Path(path).with_suffix("").parts
    if parts[1] in ("cli", "__main__") or parts[-1].endswith("command"):
        return []
    tree = ast.parse(source)
    allowed: set[ast.AST] = set()
    if parts[1] in ("bench", "kernels"):
        for node in ast.walk(tree):
            if (isinstance(node, ast.FunctionDef) and node.name == "main") or (
                isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
            ):
                allowed.update(ast.walk(node))
    return [
        f"{path}:{node.lineno}: {dotted(called)}: only commands print or exit"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call | ast.Raise) and node not in allowed
        for called in [node.func if isinstance(node, ast.Call) else node.exc]
        if called is not None and dotted(called) in PRINTS | EXITS
    ]


def modules_after(code: str) -> set[str]:
    """The top-level modules loaded at the end of the code, in a process of its own."""
    code += "\nimport sys; print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {line.partition(".")[0] for line in done.stderr.splitlines()}


def repository_files() -> list[Path]:
    """What git holds or would take in; without git, what is neither hidden nor built."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        folders = ("ifspace", "benchmarks", "experiments", "tests", "docs", "results")
        paths = [path for name in folders for path in (ROOT / name).rglob("*")]
        paths = [path for path in paths if "__pycache__" not in path.parts]
    return [path for path in paths if path.is_file()]


@pytest.mark.slow
def test_only_commands_print_or_exit() -> None:
    assert SOURCES
    faults = [
        fault
        for path in SOURCES
        for fault in output_faults(path.read_text(), path.relative_to(ROOT).as_posix())
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "line",
    ["print(1)", "sys.exit(2)", "click.echo('x')", "raise SystemExit", "sys.stdout.write(s)"],
)
def test_printing_outside_a_command_is_found(line: str) -> None:
    inside = f"def main():\n    {line}"
    assert output_faults(inside, "ifspace/catalogue/design.py")
    assert output_faults(line, "ifspace/bench/clock.py")
    assert not output_faults(inside, "ifspace/bench/clock.py")
    assert not output_faults(line, "ifspace/groups/command.py")


@pytest.mark.slow
def test_no_file_holds_a_path_of_one_machine() -> None:
    local = re.compile(rb"(?<![\w.])/(?:work|root|home|Users)/\w+")
    assert local.search(b"see /" + b"root/x")
    files = repository_files()
    assert Path(__file__) in files
    assert [
        path.relative_to(ROOT).as_posix() for path in files if local.search(path.read_bytes())
    ] == []


def test_help_starts_quickly() -> None:
    code = (
        "import sys\nfrom ifspace.cli.main import main\nsys.argv = ['ifspace', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    loaded = modules_after(code)
    assert "ifspace" in loaded
    assert not loaded & SLOW_TO_START


@pytest.mark.slow
def test_the_core_and_the_search_need_nothing_heavy() -> None:
    modules = [
        path.relative_to(ROOT).with_suffix("").as_posix().removesuffix("/__init__")
        for path in SOURCES
        if path.parent == PACKAGE or path.relative_to(PACKAGE).parts[0] in LIGHT_ROOMS
    ]
    code = "\n".join(
        f"import {module.replace('/', '.')}" for module in modules if "__main__" not in module
    )
    loaded = modules_after(code)
    assert "sympy" in loaded, "the modules were not really imported"
    assert not loaded & HEAVY
