"""The rules of the house, read off the source: who imports whom, who stays light, what no file does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOT_SCRIPTS = ("generate_k_folds", "compute_results")
LEAVES = (
    "phases", "segments", "boundaries", "kfold", "metrics", "stats", "fingerprint", "mstcn", "losses", "video",
    "decoders", "windows",
)  # fmt: skip
LEAF_MAY_IMPORT = {"paths", "runtime", "segments"}
LOWER_HALF = {"video": "decoders"}  # one concept in two files, for their length
SKIPPED_FOLDERS = {".venv", ".git", "build", "__pycache__"}


def sources(*folders: str) -> list[Path]:
    """Python files of the given folders (default: of the whole checkout), by path."""
    found = (path for folder in folders or (".",) for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if not SKIPPED_FOLDERS & set(path.relative_to(ROOT).parts))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_modules(source: str) -> set[str]:
    """Every module that a source names in an import, anywhere in it; `from a import b` counts as `a` and `a.b`."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def imports_of(path: Path) -> set[str]:
    return imported_modules(path.read_text(encoding="utf-8"))


def belongs_to(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_the_reader_of_imports_sees_every_form():
    """The rules below are only as good as this."""
    source = "import a.b, c\nfrom d import e\ndef f():\n    from g.h import i as j\n    from . import k\n"
    assert imported_modules(source) == {"a.b", "c", "d", "d.e", "g.h", "g.h.i", ".", "..k"}


# --- who imports whom ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sources("common"), ids=name_of)
def test_common_imports_nothing_above_it(path):
    above = ("models", "pretrain", "data", "tests", *ROOT_SCRIPTS)
    assert [module for module in imports_of(path) for package in above if belongs_to(module, package)] == []


@pytest.mark.parametrize("path", sources("common", "pretrain"), ids=name_of)
def test_imports_are_absolute(path):
    """So that the rules here can be read off the import lines."""
    assert [module for module in imports_of(path) if module.startswith(".")] == []


@pytest.mark.parametrize("path", sources("common/encoders"), ids=name_of)
def test_encoder_families_never_import_each_other(path):
    others = [f"common.encoders.{other.stem}" for other in sources("common/encoders") if other.stem != path.stem]
    assert [module for module in imports_of(path) for other in others if belongs_to(module, other)] == []


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_no_project_module_but_paths_runtime_and_segments(leaf):
    inside = {
        module.split(".")[1] for module in imports_of(ROOT / "common" / f"{leaf}.py") if module.startswith("common.")
    }
    assert inside <= (LEAF_MAY_IMPORT - {leaf}) | {LOWER_HALF.get(leaf)}


@pytest.mark.parametrize("path", sources("models"), ids=name_of)
def test_model_folders_import_common_only(path):
    project = ("models", "pretrain", *ROOT_SCRIPTS)
    assert [module for module in imports_of(path) for package in project if belongs_to(module, package)] == []


# --- who stays light ----------------------------------------------------------------------------------------------


def loaded_by(code: str) -> set[str]:
    """Top-level modules in `sys.modules` after running `code` in a fresh interpreter at the root."""
    code += "\nimport sys; print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded:")[2].split())


REPORTS = [f"common.reports.{path.stem}" for path in sources("common/reports") if path.stem != "__init__"]
LIGHT_NAMES = ("metrics", "stats", "protocols", "phases", "kfold", "evaluation", "audit", "reports")
LIGHT_MODULES = [*(f"common.{name}" for name in LIGHT_NAMES), *REPORTS]


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_module_starts_without_torch(module):
    assert "torch" not in loaded_by(f"import {module}")


@pytest.mark.parametrize("script", ROOT_SCRIPTS)
def test_root_script_starts_without_torch(script):
    if not (ROOT / f"{script}.py").is_file():
        pytest.skip(f"no {script}.py yet")
    loaded = loaded_by(f"import runpy; runpy.run_path('{script}.py', run_name='imported')")
    assert "common" in loaded
    assert "torch" not in loaded


def test_the_look_at_loaded_modules_would_see_torch():
    assert "torch" in loaded_by("import torch")


@pytest.mark.parametrize("library", ["timm", "torchvision", "transformers", "decord", "pytorchvideo", "wandb"])
def test_the_loop_and_the_encoder_contract_leave_model_libraries_to_the_builders(library, light_imports):
    assert library not in light_imports


@pytest.fixture(scope="module")
def light_imports() -> set[str]:
    return loaded_by("import common.extraction, common.encoder, common.weights, common.train, common.run_k_folds")


# --- what no file does --------------------------------------------------------------------------------------------


def extractors() -> list[Path]:
    return [path for path in sources("models") if path.name == "extract_features.py"]


def test_every_model_folder_has_a_config_and_an_extractor():
    configured = {path.parent.name for path in (ROOT / "models").glob("*/config.yaml")}
    assert configured == {path.parent.name for path in extractors()}
    assert {"Base", "ColorHistogram", "EfficientNet-Lite0"} <= configured


@pytest.mark.parametrize("path", extractors(), ids=name_of)
def test_extractors_have_at_most_60_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_no_file_touches_the_import_path(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    touched = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert "sys.path" not in touched


@pytest.mark.parametrize("path", sources("common", "pretrain", "models", "data"), ids=name_of)
def test_no_star_import_and_no_bare_except(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    stars = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"]
    bare = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None]
    assert (stars, bare) == ([], [])


@pytest.mark.parametrize("path", sources("common", "pretrain", "models", "data"), ids=name_of)
def test_files_are_read_without_running_code(path):
    """`torch.load` says `weights_only=True`, `np.load` never allows pickles."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if ast.unparse(node.func) == "torch.load":
            assert given.get("weights_only") == "True", f"line {node.lineno}"
        if ast.unparse(node.func) in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", "False") == "False", f"line {node.lineno}"
