"""The layers import downwards only, and heavy libraries each enter at one place."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOT_MODULES = {path.stem for path in ROOT.glob("*.py")}

# part -> parts of ours it may import
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors", "profiles"},
    "profiles": set(),
    "kernels": set(),
    "search_space": {"kernels", "errors", "config"},
    "db": {"errors"},
    "evaluator": {"search_space", "kernels", "errors", "config"},
    "agents": {"evaluator", "search_space", "kernels", "db", "errors", "config"},
    "finding_lines": {"db"},
    "dashboard": {"db", "search_space", "errors", "finding_lines"},
}
# heavy library -> the one place that may import it
SINGLE_ENTRY = {
    "ray": "evaluator/ray_pool.py",
    "openai": "agents/llm/client.py",
    "streamlit": "dashboard/",
    "plotly": "dashboard/",
    "optuna": "agents/studies/",
    "sqlalchemy": "db/",
    "alembic": "db/",
    "datasets": "evaluator/data/hugging_face.py",
    "pyarrow": "evaluator/data/parquet.py",
    "tokenizers": "evaluator/data/bpe.py",
    "typer": "",  # root modules
}


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in [*ALLOWED, ""]:
        pattern = "*.py" if not folder else f"{folder}/**/*.py"
        for path in ROOT.glob(pattern):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def part_of(module: str) -> str:
    return module.removeprefix("linearch").removeprefix(".").split(".")[0]


def imported_modules(name: str, tree: ast.Module) -> Iterator[str]:
    """Absolute module names of every import in a file, relative ones resolved."""
    package = ["linearch", *Path(name).parent.parts]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            if node.module:
                yield ".".join([*base, node.module])
            else:
                yield from (".".join([*base, alias.name]) for alias in node.names)


def test_every_part_imports_only_the_parts_below_it() -> None:
    wrong = []
    for name, tree in sources():
        part = Path(name).parts[0].removesuffix(".py")
        if part in ROOT_MODULES and part not in ALLOWED:
            continue
        for module in imported_modules(name, tree):
            if module.split(".")[0] == "linearch":
                target = part_of(module)
                if target not in {part, "", "__version__"} and target not in ALLOWED[part]:
                    wrong.append(f"{name} imports {module}")
    assert not wrong


@pytest.mark.parametrize("library", SINGLE_ENTRY)
def test_a_heavy_library_enters_at_one_place(library: str) -> None:
    places = {
        name
        for name, tree in sources()
        if any(module.split(".")[0] == library for module in imported_modules(name, tree))
    }
    assert places, f"nothing imports {library}: is it still needed?"
    entry = SINGLE_ENTRY[library]
    outside = [
        name for name in places if not (name.startswith(entry) if entry else "/" not in name)
    ]
    assert not outside


def test_the_package_list_names_every_folder() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    folders = {
        ".".join(["linearch", *path.parent.relative_to(ROOT).parts])
        for part in [*ALLOWED, "."]
        for path in (ROOT / part).glob("__init__.py" if part == "." else "**/__init__.py")
    }
    assert listed == folders


def test_files_and_functions_stay_small() -> None:
    """A file has one subject and a function fits a screen; kernels may be longer."""
    too_long = []
    for name, tree in sources():
        limit = 600 if name.startswith("kernels/") else 500
        if len((ROOT / name).read_text().splitlines()) > limit:
            too_long.append(name)
        if name.startswith("kernels/"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    too_long.append(f"{name}:{node.lineno} {node.name} ({length} lines)")
    assert not too_long


def test_only_a_workers_boundary_catches_everything() -> None:
    allowed = {
        "evaluator/sandbox/child.py",
        "evaluator/sandbox/zygote.py",
        "agents/proposing.py",  # hands what a thread raised to the thread that collects
    }
    broad = []
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else "everything"
                is_broad = caught in {"everything", "Exception", "BaseException"}
                cleans_up = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if is_broad and not cleans_up and name not in allowed:
                    broad.append(f"{name}:{node.lineno} catches {caught}")
    assert not broad
