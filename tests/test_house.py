"""The plan of the house, enforced: order of the rooms, walls between them, sizes, and what an import may cost."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minigpt

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "minigpt").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
SCRIPTS = [ROOT / "train.py", ROOT / "sample.py"]
WALLS = {  # the order of the rooms would allow these, taste forbids them
    "model": {"corpus", "tokenizer", "batches"},
    "engine": {"corpus", "tokenizer", "batches", "optim", "training"},
    "optim": {"model"},
}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "minigpt").parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Every module a file imports, wherever in the file: a late import is an import too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which room is meant"
            yield node.module or ""
            if node.module == "minigpt":
                yield from (f"minigpt.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_room_is_listed_and_every_listed_room_exists():
    """ROOMS is the table of contents; a room outside it would stand outside every rule below."""
    found = {room_of(path) for path in SOURCES if path.is_relative_to(ROOT / "minigpt")} - {"__init__"}
    assert found == set(minigpt.ROOMS)


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "minigpt")], ids=name)
def test_a_room_imports_only_rooms_before_it(path):
    """Reading order is import order: chapters share code without copies, and cycles cannot exist."""
    room = room_of(path)
    if room == "__init__":
        return
    for module in imported_modules(path):
        parts = module.split(".")
        if parts[0] != "minigpt" or len(parts) == 1:
            continue
        other = parts[1]
        assert other in minigpt.ROOMS, f"{module} is in no room"
        assert minigpt.ROOMS.index(other) <= minigpt.ROOMS.index(room), f"{room} must not look ahead to {other}"
        assert other not in WALLS.get(room, ()), f"there is a wall between {room} and {other}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "kernels")], ids=name)
def test_the_cellar_never_imports_the_house(path):
    """kernels/ is tensors in, tensors out: others can take it without the rest."""
    assert not [module for module in imported_modules(path) if module.split(".")[0] == "minigpt"]


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=name)
def test_files_and_functions_stay_readable(path):
    """A file over 400 lines or a function over 60 holds more than one idea."""
    text = path.read_text(encoding="utf-8")
    limit = 100 if path in SCRIPTS else 400
    assert text.count("\n") <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=name)
def test_every_file_says_what_it_is_for(path):
    """The first thing in a file is a sentence for the reader; front doors carry a whole half page."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    least = 5 if path.name == "__init__.py" else 1
    assert len(text.splitlines()) >= least


def runs_on_a_gpu(node: ast.FunctionDef) -> bool:
    """Triton infers the types of a kernel's tiles and takes annotations for constants."""
    return any(ast.unparse(decorator) in ("triton.jit", "gluon.jit") for decorator in node.decorator_list)


@pytest.mark.parametrize("path", [*SOURCES, *SCRIPTS], ids=name)
def test_public_functions_are_fully_typed(path):
    """A signature is the shortest documentation."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not runs_on_a_gpu(node):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert not bare, f"{node.name}: {bare} have no type"
            assert node.returns is not None, f"{node.name} has no return type"


def test_front_doors_configs_and_presets_import_no_torch():
    """`--help` answers at once: nothing heavy is imported before the command line is understood."""
    doors = [f"minigpt.{room}" for room in minigpt.ROOMS if room not in ("completion", "__main__")]
    configs = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in ROOT.glob("minigpt/*/config.py")]
    code = f"import sys, {', '.join(doors + configs)}\nassert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_scripts_heed_ctrl_c_at_once():
    """What they import before `one_line_errors` begins takes no time that counts: there Ctrl+C is a traceback."""
    code = ("import sys, train, minigpt.__main__\nassert 'minigpt.config' not in sys.modules\n"
            "import sample\nassert not {'numpy', 'torch'} & set(sys.modules)")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_triton_is_never_imported_where_no_triton_kernel_runs():
    """A laptop without Triton must not notice; one with it must not pay for it."""
    code = (
        "import sys, torch, kernels; kernels.rms_norm(torch.ones(2, 4), torch.ones(4), 1e-5)\n"
        "assert 'triton' not in sys.modules, 'triton was imported'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_nothing_committed_names_a_machine():
    """Paths of the machine a file was written on help nobody and tell too much."""
    for path in [*SOURCES, *SCRIPTS, ROOT / "README.md", *ROOT.glob("benchmarks/*"), *ROOT.glob("tests/**/*.py")]:
        if path.is_file() and path != Path(__file__):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"/(?:work|root|farm)/", text), name(path)
