"""The documents: short where they promise it, links that lead somewhere, options as they are."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    path
    for path in [
        ROOT / "README.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("data/README.md"),
        *ROOT.glob("pretrain/**/*.md"),
    ]
    if "checkpoints" not in path.parts
)


def script_of_docs(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make_commands():
    """The module that writes docs/commands.md."""
    return script_of_docs("make_commands")


@pytest.mark.parametrize("name", ["README.md", "docs/encoders.md", "data/README.md"])
def test_the_tables_are_those_of_configs_and_readers(name):
    """Where this fails: python docs/make_encoders.py."""
    tables = script_of_docs("make_encoders")
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tables.START in text
    assert text == tables.with_table(ROOT / name)


def test_the_readme_takes_two_minutes():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 2000
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert len([word for line in prose.splitlines() if not line.startswith("|") for word in line.split()]) <= 900


def test_the_readme_shows_two_commands_and_a_picture_first():
    first = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert first.index("make demo") < first.index("make test") < first.index("![")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (path.parent / target).exists()] == []


def test_every_command_is_documented(make_commands):
    guarded = [*ROOT.glob("common/*.py"), *ROOT.glob("pretrain/**/*.py"), *ROOT.glob("data/*.py"), *ROOT.glob("*.py")]
    guarded = {path for path in guarded if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")}
    programs = [name.partition(" ")[0] for name in make_commands.COMMANDS]
    named = {ROOT / (name if name.endswith(".py") else f"{name.replace('.', '/')}.py") for name in programs}
    assert named == guarded


def test_the_page_of_commands_is_up_to_date(make_commands):
    """Where this fails: python docs/make_commands.py."""
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == make_commands.commands_page()
