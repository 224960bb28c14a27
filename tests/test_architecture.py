"""Imports only go down the layers, files stay small, and nothing that the project refuses has come in."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "variseq"
LAYERS = [
    {"errors"},
    {"atomic", "distinct", "output", "threads"},
    {"events"},
    {"sequences", "content"},
    {"ranking"},
    {"model", "evaluation"},
    {"artifacts"},
    {"privacy"},
    {"recommend", "training", "log", "exposures"},
    {"comparison", "pipeline", "off_policy", "experiments"},
    {"estimator", "inference", "erasure"},
    {"reports", "serving", "export", "private_model", "federation"},
    {"terminal"},
    {"cli"},
    {"__main__"},
]
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}
REFUSED_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "constants", "misc"}
REFUSED_IMPORTS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
MAX_FILE_LINES = 500

FILES = sorted(PACKAGE.rglob("*.py"))


def every_file(check: Callable[[Path], None]) -> Callable[[], None]:
    """A test that checks each file of the package; the message of the check names the file."""

    def test() -> None:
        for file in FILES:
            check(file)

    test.__name__ = test.__qualname__ = check.__name__
    return test


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}


def part_of(module: str) -> str:
    """The folder or file right below the package; empty for the public API itself."""
    return module.removeprefix("variseq").removeprefix(".").split(".")[0]


@functools.cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def imports_of(file: Path) -> Iterator[str]:
    """Every module that a file imports anywhere in it, also inside functions; for names of ours, the file they are."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.relative_to(ROOT)}:{node.lineno} has a relative import; write it in full"
            module = node.module or ""
            for alias in node.names:
                yield f"{module}.{alias.name}" if f"{module}.{alias.name}" in MODULES else module


def own_imports_of(file: Path) -> set[str]:
    return {module for module in imports_of(file) if module.split(".")[0] == "variseq"}


def calls_of(file: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree_of(file)) if isinstance(node, ast.Call))


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """A path that comes back to its start, or nothing."""
    cleared: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in cleared:
            return []
        for other in sorted(graph.get(module, ())):
            if circle := walk(other, [*path, module]):
                return circle
        cleared.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := walk(module, []))), [])


@every_file
def test_imports_only_go_down(file: Path) -> None:
    here = part_of(module_of(file))
    if not here:
        return  # The public API imports from every layer.
    assert here in LAYER_OF, f"{here} has no layer yet; give it one in LAYERS"
    for module in own_imports_of(file):
        there = part_of(module)
        assert there, f"{file.relative_to(ROOT)} imports the public API; import the file that has the name"
        if there == here:
            continue
        place = "the same" if LAYER_OF[there] == LAYER_OF[here] else "a higher"
        assert LAYER_OF[there] < LAYER_OF[here], f"{file.relative_to(ROOT)} imports {module}, which is in {place} layer"


def test_guide_for_contributors_shows_every_package_in_its_layer() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", guide, flags=re.MULTILINE)
    shown = {int(number): set(re.findall(r"`(\w+)(?:/|\.py)`", parts)) for number, parts in rows}
    assert shown == dict(enumerate(LAYERS))


def test_files_of_a_package_do_not_import_in_a_circle() -> None:
    inside = {
        module_of(file): {
            other
            for other in own_imports_of(file)
            if part_of(other) == part_of(module_of(file)) != "" and other in MODULES
        }
        for file in FILES
    }
    circle = find_circle(inside)
    assert not circle, " imports ".join(circle)


def test_circle_is_found_where_there_is_one() -> None:
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@every_file
def test_file_is_short_and_named_for_an_idea(file: Path) -> None:
    num_lines = len(file.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_FILE_LINES, f"{file.relative_to(ROOT)} has {num_lines} lines; at most {MAX_FILE_LINES}"
    assert file.stem not in REFUSED_NAMES, f"{file.relative_to(ROOT)} is named for no idea"
    assert file.parent.name not in REFUSED_NAMES, f"{file.parent.relative_to(ROOT)} is named for no idea"


@every_file
def test_file_begins_with_a_docstring(file: Path) -> None:
    assert ast.get_docstring(tree_of(file)), f"{file.relative_to(ROOT)} has no docstring"


@every_file
def test_nothing_is_pickled(file: Path) -> None:
    where = file.relative_to(ROOT)
    for module in imports_of(file):
        assert module.split(".")[0] not in REFUSED_IMPORTS, f"{where} imports {module}"
    for call in calls_of(file):
        weights_only = any(one.arg == "weights_only" and ast.unparse(one.value) == "True" for one in call.keywords)
        assert ast.unparse(call.func) not in ("torch.load", "torch.save") or weights_only, (
            f"{where}:{call.lineno} pickles; use safetensors"
        )
        allowed = any(
            keyword.arg == "allow_pickle"
            and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
            for keyword in call.keywords
        )
        assert not allowed, f"{where}:{call.lineno} allows pickle"


@every_file
def test_text_is_printed_by_consoles_that_read_no_markup(file: Path) -> None:
    if file.relative_to(PACKAGE) == Path("output/console.py"):
        return  # The one place where a console is made.
    for call in calls_of(file):
        name = ast.unparse(call.func)
        assert name.split(".")[-1] not in ("Console", "from_markup"), (
            f"{file.relative_to(ROOT)}:{call.lineno} reads markup; use variseq.output.console"
        )
    assert not {"rich.print", "rich.markup", "rich"} & set(imports_of(file)), f"{file.relative_to(ROOT)} reads markup"
