"""The documents: short where they promise it, links that lead somewhere, options as they are."""

import importlib.util
import json
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
    is_up_to_date = text == tables.with_table(ROOT / name)
    assert is_up_to_date, f"{name}: a config or a reader has changed; run: python docs/make_encoders.py"


def test_the_readme_takes_two_minutes():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 2000
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert len([word for line in prose.splitlines() if not line.startswith("|") for word in line.split()]) <= 900


def test_the_readme_shows_two_commands_and_a_picture_first():
    first = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")[0]
    assert first.index("make demo") < first.index("make test") < first.index("![")


def test_quoted_entries_are_marked_where_one_answer_would_do_as_well(reference_data):
    """SurgRec's Table 2: shares as counted from its lists, italics at or below them, means as published."""
    counted = json.loads((reference_data / "golden" / "surgrec_majority.json").read_text())
    text = (
        (ROOT / "docs" / "tasks.md")
        .read_text(encoding="utf-8")
        .partition("What clips of SurgRec show")[2]
        .partition("\n## ")[0]
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line][2:]
    assert {name: [clips, share] for name, clips, share, *_ in rows} == {
        name: [f"{facts['n']:,}", f"{facts['majority']:.2f}"] for name, facts in counted.items()
    }
    marked = {name: sum("*" in entry for entry in entries) for name, _, _, *entries in rows}
    assert marked == {name: facts["at_or_below"] for name, facts in counted.items()}
    values = [[float(entry.strip("*")) for entry in entries] for _, _, _, *entries in rows]
    for (_, _, share, *entries), of_row in zip(rows, values, strict=True):
        assert ["*" in entry for entry in entries] == [value <= float(share) for value in of_row]
    means = [round(sum(column) / len(values), 2) for column in zip(*values, strict=True)]
    assert means == [32.56, 33.87, 28.25, 35.92, 34.02, 45.28, 39.11]


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
    assert named == guarded, "name the command in COMMANDS of docs/make_commands.py, then run it"


@pytest.mark.slow
def test_the_page_of_commands_is_up_to_date(make_commands):
    """Where this fails: python docs/make_commands.py."""
    is_up_to_date = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == make_commands.commands_page()
    assert is_up_to_date, "docs/commands.md: an option has changed; run: python docs/make_commands.py"
