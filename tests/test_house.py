"""The rules of the house (`common/__init__.py`): which room imports which, who stays light, what no file does."""

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOT_SCRIPTS = ("generate_k_folds", "compute_results")
SKIPPED_FOLDERS = {".venv", ".git", "build", "__pycache__"}

# the rooms of common/ in the order in which the data goes: one imports only those before it, and not all of them
ROOMS = ("base", "dataset", "scoring", "video", "encoders", "features", "head", "tasks", "checks", "reports")
FORBIDDEN = {
    ("video", "dataset"),
    ("video", "scoring"),
    ("encoders", "scoring"),
    ("features", "scoring"),
    ("checks", "head"),
}
CATALOGUES = {"families", "networks", "releases"}  # rooms of one file per thing: any number, however short
LARGEST_ROOM, LONGEST_FILE, LONGEST_FUNCTION, CRUMB = 12, 600, 60, 60
SHARED_NAMES = {"main", "build"}  # what a contract calls the same in several modules
DECODERS = {"av", "cv2", "decord", "torchcodec"}
MODEL_LIBRARIES = {"timm", "torchvision", "transformers", "peft", "pytorchvideo"}


def sources(*folders: str) -> list[Path]:
    """Python files of the given folders (default: of the whole checkout), by path."""
    found = (path for folder in folders or (".",) for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if not SKIPPED_FOLDERS & set(path.relative_to(ROOT).parts))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_in(tree: ast.AST, *, when_imported: bool = False) -> Iterator[str]:
    """Every module that a source names in an import; `from a import b` counts as `a` and `a.b`.

    `when_imported` leaves out what only a call of a function imports, or a type checker.
    """
    if when_imported and isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    if when_imported and isinstance(tree, ast.If) and ast.unparse(tree.test) == "TYPE_CHECKING":
        return
    if isinstance(tree, ast.Import):
        yield from (alias.name for alias in tree.names)
    elif isinstance(tree, ast.ImportFrom):
        module = "." * tree.level + (tree.module or "")
        yield module
        yield from (f"{module}.{alias.name}" for alias in tree.names)
    for child in ast.iter_child_nodes(tree):
        yield from imports_in(child, when_imported=when_imported)


def imports_of(path: Path) -> set[str]:
    return set(imports_in(tree_of(path)))


def belongs_to(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def room_of(module: str) -> str | None:
    """The room of `common` that a module lies in; None for commands and for what is not in `common`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "common" and parts[1] in ROOMS else None


def test_the_reader_of_imports_sees_every_form():
    """The rules below are only as good as this."""
    source = "import a.b, c\nfrom d import e\ndef f():\n    from g.h import i as j\n    from . import k\n"
    assert set(imports_in(ast.parse(source))) == {"a.b", "c", "d", "d.e", "g.h", "g.h.i", ".", "..k"}
    assert set(imports_in(ast.parse(source), when_imported=True)) == {"a.b", "c", "d", "d.e"}


# --- rooms and arrows ---------------------------------------------------------------------------------------------


def test_the_map_names_every_room_in_order():
    rooms = {path.name for path in (ROOT / "common").iterdir() if (path / "__init__.py").is_file()}
    assert rooms == set(ROOMS)
    docstring = ast.get_docstring(tree_of(ROOT / "common" / "__init__.py"))
    described = [line.split()[0] for line in docstring.splitlines() if line.startswith("    ")]
    assert described == list(ROOMS)


def of_every(paths: list[Path]) -> Callable[[Callable[[Path], None]], Callable[[], None]]:
    """One test of a rule for all of the files: one for each file costs more in being made than in looking."""

    def decorate(rule: Callable[[Path], None]) -> Callable[[], None]:
        def test() -> None:
            broken = []
            for path in paths:
                try:
                    rule(path)
                except AssertionError as error:
                    broken.append(f"{name_of(path)}: {error}")
            assert not broken, "\n".join(broken)

        test.__name__, test.__doc__ = rule.__name__, rule.__doc__
        return test

    return decorate


def test_a_broken_rule_names_every_file():
    def is_short(path: Path) -> None:
        assert len(path.name) < 10, "give it a shorter name"

    check = of_every([ROOT / "common/a_long_name.py", ROOT / "common/b.py", ROOT / "common/another_name.py"])(is_short)
    with pytest.raises(AssertionError, match=r"(?s)a_long_name\.py: give it.*another_name\.py: give it") as error:
        check()
    assert "b.py" not in str(error.value)


@of_every(sources("common"))
def test_common_imports_nothing_above_it(path):
    above = ("models", "pretrain", "data", "tests", *ROOT_SCRIPTS)
    assert [module for module in imports_of(path) for package in above if belongs_to(module, package)] == []


@of_every(sources(*(f"common/{room}" for room in ROOMS)))
def test_a_room_imports_only_rooms_before_it(path):
    here = room_of(module_of(path))
    others = {room_of(module) for module in imports_of(path)} - {None, here}
    later = {room for room in others if ROOMS.index(room) > ROOMS.index(here) or (here, room) in FORBIDDEN}
    assert later == set(), "rooms import only those before them: move the file, or hand in what it needs"


@of_every(sources(*(f"common/{room}" for room in ROOMS)))
def test_a_room_imports_no_command(path):
    commands = {f"common.{command.stem}" for command in (ROOT / "common").glob("*.py")} - {"common.__init__"}
    assert imports_of(path) & commands == set()


@of_every(sources("common/encoders/families"))
def test_encoder_families_never_import_each_other(path):
    others = {module_of(other) for other in sources("common/encoders/families")} - {module_of(path)}
    assert imports_of(path) & (others - {"common.encoders.families"}) == set()


@of_every(sources("models"))
def test_model_folders_import_common_only(path):
    project = ("models", "pretrain", *ROOT_SCRIPTS)
    assert [module for module in imports_of(path) for package in project if belongs_to(module, package)] == []


@of_every(sources("pretrain/engine"))
def test_the_pretraining_engine_knows_no_family_of_networks(path):
    known = ("common.encoders.families", "pretrain.methods", "pretrain.backbones", *MODEL_LIBRARIES)
    assert [module for module in imports_of(path) for package in known if belongs_to(module, package)] == []


@of_every(sources("common", "pretrain"))
def test_imports_are_absolute(path):
    """So that the rules here can be read off the import lines."""
    assert [module for module in imports_of(path) if module.startswith(".")] == [], (
        "write `from common.room.file import name`"
    )


def test_imports_run_in_no_circle():
    """Imports inside functions count too: each file can be read after those that it imports."""
    files = {module_of(path): path for path in sources("common", "pretrain")}
    left = {module: imports_of(path) & (files.keys() - {module}) for module, path in files.items()}
    while ready := [module for module, needed in left.items() if not needed & left.keys()]:
        for module in ready:
            del left[module]
    assert left == {}


# --- one concept a file -------------------------------------------------------------------------------------------


@of_every(sorted((ROOT / "common").glob("*.py")))
def test_a_file_directly_in_common_is_a_command(path):
    functions = {node.name for node in tree_of(path).body if isinstance(node, ast.FunctionDef)}
    assert path.name == "__init__.py" or "main" in functions


@of_every([path for path in sources() if path.name == "__init__.py"])
def test_there_is_no_code_in_a_package_file(path):
    assert [ast.unparse(node) for node in tree_of(path).body[1:]] == []
    assert ast.get_docstring(tree_of(path))


def test_a_room_holds_few_files():
    product = [path for path in sources("common", "pretrain") if path.name != "__init__.py"]
    sizes = Counter(path.parent for path in product if path.parent.name not in CATALOGUES | {"common", "pretrain"})
    crowded = {name_of(room): size for room, size in sizes.items() if size > LARGEST_ROOM}
    assert crowded == {}, f"at most {LARGEST_ROOM} files a room: group some of them in a room inside it"


@of_every(sources("common", "pretrain", "models", "data"))
def test_files_and_functions_are_not_too_long(path):
    length = len(path.read_text(encoding="utf-8").splitlines())
    assert length <= LONGEST_FILE, "split the file where a reader would look for two things"
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)]
    long = {node.name for node in functions if node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION}
    assert long == set(), f"at most {LONGEST_FUNCTION} lines: give a step of it a name"


def test_no_crumbs():
    """A short module that only its neighbour imports belongs into that neighbour."""
    files = {module_of(path): path for path in sources("common", "pretrain", "models", "data")}
    importers = defaultdict(set)
    for path in [*files.values(), *(ROOT / f"{script}.py" for script in ROOT_SCRIPTS)]:
        for module in imports_of(path) & files.keys():
            importers[module].add(path)
    crumbs = {}
    for module, path in files.items():
        if path.name == "__init__.py" or path.parent.name in CATALOGUES or path.parent in (ROOT / "common",):
            continue
        short = max((node.end_lineno for node in tree_of(path).body), default=0) < CRUMB
        if short and len(importers[module]) == 1 and next(iter(importers[module])).parent == path.parent:
            crumbs[name_of(path)] = name_of(next(iter(importers[module])))
    assert crumbs == {}, f"under {CRUMB} lines with one importer beside it: move it into that importer"


def test_a_public_name_means_one_thing():
    owners = defaultdict(set)
    for path in sources("common", "pretrain"):
        for node in tree_of(path).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                owners[node.name].add(name_of(path))
    shared = {name: where for name, where in owners.items() if len(where) > 1 and name not in SHARED_NAMES}
    assert shared == {}, "a public name means one thing in the whole house: rename one of each"


@of_every(sources("tests/common", "tests/pretrain"))
def test_tests_lie_where_the_code_lies(path):
    assert (ROOT / path.relative_to(ROOT / "tests").parent).is_dir(), (
        "tests/ mirrors the tree: move it to the room it tests"
    )


# --- who stays light ----------------------------------------------------------------------------------------------


def loaded_by(code: str, *, whole_names: bool = False) -> set[str]:
    """Modules in `sys.modules` after running `code` in a fresh interpreter at the root: their packages, or whole names."""
    code += "\nimport sys; print('loaded:', *sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    names = done.stdout.rpartition("loaded:")[2].split()
    return set(names) if whole_names else {name.partition(".")[0] for name in names}


def test_rooms_of_text_and_numbers_start_without_torch():
    rooms = ("common/dataset", "common/scoring", "common/reports")
    modules = ", ".join(module_of(path) for path in sources(*rooms))
    assert "torch" not in loaded_by(f"import {modules}")


def test_scoring_loads_no_video_either():
    assert DECODERS & loaded_by(f"import {', '.join(module_of(path) for path in sources('common/scoring'))}") == set()


def test_training_loads_no_decoder_and_no_encoder_family():
    loaded = loaded_by("import common.train, common.head.training, common.head.prediction", whole_names=True)
    packages = {name.partition(".")[0] for name in loaded}
    assert packages & (DECODERS | MODEL_LIBRARIES | {"wandb"}) == set()
    assert {name for name in loaded if belongs_to(name, "common.encoders.families")} == set()


def test_the_extraction_leaves_model_libraries_to_the_families():
    assert loaded_by("import common.features.extract") & (MODEL_LIBRARIES | {"decord", "wandb"}) == set()


def test_the_look_at_loaded_modules_would_see_torch():
    assert "torch" in loaded_by("import torch")


def commands() -> list[list[str]]:
    """Every command of the project, as it is called: scripts by their path, the others by `-m`."""
    shared = [["-m", module_of(path)] for path in sorted((ROOT / "common").glob("*.py")) if path.name != "__init__.py"]
    guarded = [path for path in sources("pretrain", "data") if 'if __name__ == "__main__"' in path.read_text()]
    one_of_many = ROOT / "models" / "Base" / "extract_features.py"
    scripts = [*guarded, one_of_many, *(ROOT / f"{script}.py" for script in ROOT_SCRIPTS)]
    return shared + [[name_of(path)] for path in scripts]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_answers_without_torch(command):
    """`--help` of a command takes as long as its imports: nothing that computes may be among them."""
    words = [sys.executable, "-X", "importtime", *command, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in imported
    heavy = {"torch", "matplotlib", "pandas", "plotly", "sklearn", "scipy"} | DECODERS | MODEL_LIBRARIES
    assert imported & heavy == set()


# --- the way of the data ------------------------------------------------------------------------------------------


def closure(*modules: str) -> set[str]:
    """The project's files that importing `modules` opens, package files not counted."""
    files = {module_of(path): path for path in sources("common", "models/Base")}
    seen, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module in files and module not in seen:
            seen.add(module)
            waiting += imports_in(tree_of(files[module]), when_imported=True)
    return {module for module in seen if files[module].name != "__init__.py"}


def test_a_video_reaches_its_features_through_few_files():
    way = closure("models.Base.extract_features", "common.extract_features", "common.features.extract")
    assert len(way) <= 18, sorted(way)


def test_a_split_reaches_its_scores_through_few_files():
    way = closure("common.train", "common.head.training", "common.head.prediction")
    assert len(way) <= 22, sorted(way)


# --- what no file does --------------------------------------------------------------------------------------------


def extractors() -> list[Path]:
    return [path for path in sources("models") if path.name == "extract_features.py"]


def test_every_model_folder_has_a_config_and_an_extractor():
    configured = {path.parent.name for path in (ROOT / "models").glob("*/config.yaml")}
    assert configured == {path.parent.name for path in extractors()}
    assert {"Base", "ColorHistogram", "EfficientNet-Lite0"} <= configured


@of_every(extractors())
def test_extractors_have_at_most_60_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60


@of_every(sources("common", "pretrain"))
def test_paths_alone_spells_file_names(path):
    """Names of files that several commands share; a docstring may mention them."""
    if name_of(path) == "common/base/paths.py":
        return
    shared = {"run.json", "final.pt", "last.pt", "best.pt", "manifest.json", "video_index.json", "folds.json"}
    spelled = {node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)}
    assert {name for name in shared if name in {str(value) for value in spelled}} == set()


@of_every(sources())
def test_no_file_touches_the_import_path(path):
    attributes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute) and node.attr == "path"]
    assert "sys.path" not in [ast.unparse(node) for node in attributes]


@of_every(sources("common", "pretrain", "models", "data"))
def test_no_star_import_and_no_bare_except(path):
    nodes = list(ast.walk(tree_of(path)))
    stars = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    bare = [node for node in nodes if isinstance(node, ast.ExceptHandler) and node.type is None]
    assert (stars, bare) == ([], [])


@of_every(sources("common", "pretrain", "models", "data"))
def test_text_is_read_by_the_one_reader(path):
    """`files.read_text` says what is wrong with a damaged file; what the kernel writes is none."""
    if name_of(path) in ("common/base/files.py", "common/checks/machine.py"):
        return
    methods = [node.func for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    found = {ast.unparse(method) for method in methods if getattr(method, "attr", None) == "read_text"}
    assert found <= {"files.read_text"}


@of_every(sources("common", "pretrain", "models", "data", "tests"))
def test_files_are_read_without_running_code(path):
    """`torch.load` says `weights_only=True`, `np.load` never allows pickles."""
    for node in ast.walk(tree_of(path)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load"):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if ast.unparse(node.func) == "torch.load":
            assert given.get("weights_only") == "True", f"line {node.lineno}"
        if ast.unparse(node.func) in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", "False") == "False", f"line {node.lineno}"
