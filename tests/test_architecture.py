"""The shape of the repository: who imports whom, who prints, what starts quickly.

The first half is data. A broken row fails with the file, the line and what was imported.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ifspace"

# A room is a module or package right below ifspace/; "" is ifspace/__init__.py, the facade.
PURE = frozenset(
    {"errors", "kinds", "block", "infofield", "reach", "plan", "catalogue", "parallel"}
)
IMPORTS: dict[str, frozenset[str]] = {
    "errors": frozenset(),
    "kinds": frozenset({"errors"}),
    "block": frozenset({"errors", "kinds"}),
    "infofield": frozenset({"errors", "kinds", "block"}),
    "reach": frozenset({"errors", "kinds", "block"}),
    "plan": frozenset({"errors", "kinds", "block", "infofield", "reach"}),
    "catalogue": frozenset({"errors", "kinds", "block", "plan"}),
    "parallel": frozenset({"errors"}),
    "enumerate": PURE,
    "optimize": PURE,
    "kernels": frozenset({"errors"}),
    "nn": PURE | {"kernels"},
    "models": PURE | {"kernels", "nn", "optimize"},
    "training": PURE | {"nn", "optimize", "models"},
    # A benchmark may measure any verb, and the enumeration is one.
    "bench": PURE | {"kernels", "nn", "optimize", "enumerate", "models"},
    "report": PURE,
    "cli": PURE
    | {"enumerate", "optimize", "kernels", "nn", "models", "training", "bench", "report"},
    "__main__": frozenset({"cli"}),
    "": PURE | {"enumerate"},
}
# Packages that only some rooms may import; all others are free.
ONLY_IN: dict[str, frozenset[str]] = {
    "ortools": frozenset({"optimize"}),
    "torch": frozenset({"kernels", "nn", "models", "training", "bench"}),
    "triton": frozenset({"kernels", "nn", "models", "bench"}),
    "click": frozenset({"cli"}),
    "rich": frozenset({"cli"}),
    "matplotlib": frozenset({"report", "bench"}),
    "joblib": frozenset({"parallel"}),
    "multiprocessing": frozenset({"parallel"}),
    "concurrent": frozenset({"parallel"}),
    "pyarrow": frozenset({"catalogue"}),
}
EXITS = frozenset({"exit", "quit", "sys.exit", "os._exit", "SystemExit"})
PRINTS = frozenset({"print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"})
HEAVY = frozenset({"torch", "triton", "ortools", "matplotlib"})
SLOW_TO_START = HEAVY | {"numba", "sympy", "pyarrow", "numpy", "joblib", "pandas"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST, package: str) -> Iterator[tuple[ast.stmt, str]]:
    """Every import in the tree, wherever it stands, as an absolute dotted name.

    `from a import b` counts as `a.b`: b may be a module, and if not, a is still the prefix.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: -(node.level - 1) or None] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from ((node, f"{base}.{alias.name}") for alias in node.names)


def import_faults(source: str, path: str) -> list[str]:
    """What the file, given by its text and its path below the root, imports against the table."""
    parts = Path(path).with_suffix("").parts
    room = parts[1] if parts[1] != "__init__" else ""
    tree = ast.parse(source)
    local = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    faults = []
    for node, name in imported(tree, ".".join(parts[:-1])):
        top, _, rest = name.partition(".")
        where = f"{path}:{node.lineno}: imports {name}"
        if top in ONLY_IN and room not in ONLY_IN[top]:
            faults.append(f"{where}: only {sorted(ONLY_IN[top])} may import {top}")
        if top != "ifspace":
            continue
        target = rest.partition(".")[0]
        if name == "ifspace.enumerate" and room != "":
            faults.append(f"{where}: the name would hide the builtin; import from its modules")
        elif target not in IMPORTS or target == "":
            faults.append(f"{where}: only users and tests import the facade")
        elif target != room and target not in IMPORTS[room]:
            faults.append(f"{where}: {room or 'the facade'} may import {sorted(IMPORTS[room])}")
        if node in local and room != "cli":
            faults.append(f"{where}: inside a function; only cli/ defers the program's own files")
    return faults


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def output_faults(source: str, path: str) -> list[str]:
    """Calls that print or exit, outside cli/, __main__.py and the main() of a benchmark."""
    room = Path(path).with_suffix("").parts[1]
    if room in ("cli", "__main__"):
        return []
    tree = ast.parse(source)
    excused: set[ast.AST] = set()
    if room == "bench":
        for node in ast.walk(tree):
            if (isinstance(node, ast.FunctionDef) and node.name == "main") or (
                isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
            ):
                excused.update(ast.walk(node))
    return [
        f"{path}:{node.lineno}: {dotted(called)}: only cli/ prints or exits"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call | ast.Raise) and node not in excused
        for called in [node.func if isinstance(node, ast.Call) else node.exc]
        if called is not None and dotted(called) in PRINTS | EXITS
    ]


def in_new_python(code: str) -> set[str]:
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
        found = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:
        found = [p for top in ("ifspace", "tests", "docs", "results") for p in ROOT.glob(top)]
        found = [p for top in found for p in top.rglob("*") if "__pycache__" not in p.parts]
    return [path for path in found if path.is_file()]


def test_imports_follow_the_table() -> None:
    assert SOURCES
    faults = [f for path in SOURCES for f in import_faults(path.read_text(), relative(path))]
    assert not faults, "\n".join(faults)


def test_every_room_is_in_the_table() -> None:
    rooms = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in SOURCES}
    assert rooms - {"__init__"} <= IMPORTS.keys()


def test_only_the_command_line_prints_or_exits() -> None:
    faults = [f for path in SOURCES for f in output_faults(path.read_text(), relative(path))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("ifspace/kinds.py", "from ifspace.block import Block", "kinds may import"),
        ("ifspace/kinds.py", "from .block import Block", "kinds may import"),
        ("ifspace/kinds.py", "from . import block", "kinds may import"),
        ("ifspace/kinds.py", "import ifspace.block as b", "kinds may import"),
        ("ifspace/enumerate/search.py", "from ..optimize import groups", "enumerate may import"),
        ("ifspace/enumerate/search.py", "from ..errors import A; import torch", "torch"),
        ("ifspace/nn/layers.py", "def f():\n    from ifspace.optimize import x", "nn may import"),
        ("ifspace/nn/layers.py", "def f():\n    import ifspace.kinds", "inside a function"),
        ("ifspace/reach.py", "if TYPE_CHECKING:\n    from .infofield import x", "reach may import"),
        ("ifspace/cli/show.py", "from ifspace import Block", "facade"),
        ("ifspace/cli/show.py", "import ifspace", "facade"),
        ("ifspace/cli/show.py", "from ifspace import enumerate", "hide the builtin"),
        ("ifspace/plan.py", "from joblib import Parallel", "joblib"),
        ("ifspace/optimize/groups.py", "import pyarrow.parquet as pq", "pyarrow"),
        ("ifspace/__init__.py", "from ifspace.cli.main import main", "facade may import"),
    ],
)
def test_a_forbidden_import_is_seen(path: str, source: str, fault: str) -> None:
    assert any(fault in found for found in import_faults(source, path))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ifspace/enumerate/search.py", "from ifspace import kinds\nfrom . import words"),
        ("ifspace/enumerate/search.py", "def f():\n    import numba"),
        ("ifspace/cli/show.py", "def f():\n    from ifspace.enumerate.search import space"),
        ("ifspace/__init__.py", "from ifspace.block import Block\nfrom .enumerate import rules"),
        ("ifspace/optimize/cpsat.py", "from ortools.sat.python import cp_model"),
    ],
)
def test_an_allowed_import_passes(path: str, source: str) -> None:
    assert import_faults(source, path) == []


@pytest.mark.parametrize(
    "line",
    ["print(1)", "sys.exit(2)", "click.echo('x')", "raise SystemExit", "sys.stdout.write(s)"],
)
def test_output_is_seen(line: str) -> None:
    inside = f"def main():\n    {line}"
    assert output_faults(inside, "ifspace/catalogue.py")
    assert output_faults(line, "ifspace/bench/measure.py")
    assert not output_faults(inside, "ifspace/bench/measure.py")
    assert not output_faults(line, "ifspace/cli/show.py")


def test_no_file_holds_a_path_of_one_machine() -> None:
    local = re.compile(rb"(?<![\w.])/(?:work|root|home|Users)/\w+")
    assert local.search(b"see /" + b"root/x")
    files = repository_files()
    assert Path(__file__) in files
    assert [relative(path) for path in files if local.search(path.read_bytes())] == []


def test_help_starts_quickly() -> None:
    code = (
        "import sys\nfrom ifspace.cli.main import main\nsys.argv = ['ifspace', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    loaded = in_new_python(code)
    assert "ifspace" in loaded
    slow = loaded & SLOW_TO_START
    assert not slow


def test_the_pure_layer_needs_nothing_heavy() -> None:
    rooms = PURE | {"enumerate"}
    modules = [
        relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in SOURCES
        if path.relative_to(PACKAGE).with_suffix("").parts[0] in rooms | {"__init__"}
    ]
    loaded = in_new_python("\n".join(f"import {module}" for module in modules))
    assert "sympy" in loaded, "the modules were not really imported"
    heavy = loaded & HEAVY
    assert not heavy
