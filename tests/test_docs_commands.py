"""Every command in the documents, as it stands: it exists, in the folder that its block goes to, and has these options."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
import textwrap
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from common.base.paths import Dataset
from common.dataset.description import read_description
from common.dataset.importing.described import described_release
from common.dataset.importing.release import Reading
from common.dataset.releases import autolaparo
from common.encoders.base import build_encoder
from common.encoders.config import read_encoder_config
from common.encoders.contract import breaches
from common.encoders.weights.load import RANDOM
from common.scoring.further_measures import FURTHER_MEASURES, FurtherMeasure
from common.scoring.metrics import confusion_matrix
from common.scoring.protocols import PROTOCOLS, Protocol, methods_sentence, summarise
from common.scoring.video_score import SegmentRule, VideoScore
from tests.test_docs import DOCUMENTS, ROOT

# programs of others, and the shell's own words
OTHERS = {"mkdir", "cp", "source", "pip", "python3", "label-studio", "printf", "export", "for", "done", "do"}
LAUNCHERS = {"sbatch", "srun"}
ASSIGNMENT = re.compile(r"[A-Z_0-9]+=.*")


class _Parsed(BaseException):
    """Carries a command's parser out of it."""


def blocks(path: Path, language: str = "") -> list[str]:
    """The text of each block of a language, "" for commands."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, named, text in found if named == language]


def lines_of_commands(path: Path) -> list[list[str]]:
    """The lines of each block of commands: without comments, continued lines joined."""
    joined = [block.replace("\\\n", " ") for block in blocks(path)]
    return [[re.sub(r"(^|\s)#.*", "", line).strip() for line in block.splitlines()] for block in joined]


def commands_of(path: Path) -> list[tuple[Path, list[str]]]:
    """Every command of a document: the folder that its block has gone to, and its words."""
    found = []
    for lines in lines_of_commands(path):
        folder = ROOT
        for line in lines:
            for part in re.split(r"\s(?:&&|\|)\s", line):
                begun = next((word for word in part.split() if not ASSIGNMENT.fullmatch(word)), "")
                if begun not in ("cd", "python", "make", "torchrun", *OTHERS, *LAUNCHERS):
                    continue  # what a command prints, a file's content
                words = shlex.split(part)
                words = words[words.index(begun) :]
                if begun == "cd":
                    folder = (folder / words[1]).resolve()
                else:
                    found.append((folder, words))
    return found


@cache
def parser_of(program: str) -> argparse.ArgumentParser:
    """The parser that a command asks first."""

    def stop(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Parsed(parser)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", [program])
        patched.setattr(argparse.ArgumentParser, "parse_args", stop)
        patched.delitem(sys.modules, program, raising=False)  # of another test: `runpy` warns of it
        if program.endswith(".py"):  # a script's neighbours are imported by name
            patched.syspath_prepend((ROOT / program).parent)
        try:
            if program.endswith(".py"):
                runpy.run_path(str(ROOT / program), run_name="__main__")
            else:
                runpy.run_module(program, run_name="__main__")
        except _Parsed as parsed:
            return parsed.args[0]
    raise AssertionError(f"{program} asks no parser")


def check(folder: Path, words: list[str]) -> None:
    """Fail where a command does not exist, or does not have what it is given."""
    if words[0] == "make":
        assert words[1] in re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), words
        return
    if words[0] in LAUNCHERS or words[0] == "torchrun":
        scripts = [word for word in words if word.endswith((".sh", ".py")) and " " not in word]
        scripts += [inner for word in words if " " in word for inner in word.split() if inner.endswith((".sh", ".py"))]
        assert scripts, words
        assert [script for script in scripts if not (folder / script).is_file()] == [], words
        return
    if words[0] != "python":
        return
    if words[1] == "-m":
        program, given = words[2], words[3:]
        if not program.startswith(("common.", "pretrain.")):
            return
    else:
        script = (folder / words[1]).resolve()
        assert script.is_file(), f"{words[1]}: no such script in {folder}"
        program, given = script.relative_to(ROOT).as_posix(), words[2:]
    if program == "data/import_dataset.py" and given[0] == "annotations":  # a command of its own behind the word
        return
    if (ROOT / program).parent in (ROOT / "tests" / "benchmarks", ROOT / "docs"):
        return
    try:
        parser_of(program).parse_args(given)
    except SystemExit as stopped:
        raise AssertionError(f"{' '.join(words)}: its options are other ones (the message is above)") from stopped


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_a_document_exists_with_its_options(path):
    for folder, words in commands_of(path):
        check(folder, words)


def test_the_reader_of_commands_sees_folders_and_wrong_options():
    """The test above is only as good as this."""
    found = [words for _, words in commands_of(ROOT / "README.md") if words[0] == "python"]
    assert len(found) > 15
    assert (ROOT / "models" / "Base", ["python", "extract_features.py"]) in commands_of(ROOT / "README.md")
    for wrong in ("python -m common.run_k_folds --fold 5", "python nothing.py", "make nothing", "sbatch models/no.sh"):
        with pytest.raises(AssertionError):
            check(ROOT, wrong.split())


def test_no_document_names_a_device():
    """It is found by itself."""
    told = [
        (path.name, words)
        for path in DOCUMENTS
        for _, words in commands_of(path)
        if "--device" in words and "cuda" in words
    ]
    assert told == []


# --- examples in other languages ------------------------------------------------------------------------------------

# how each begins; all are tried below but the first, a program: `test_docs_run.py`
EXAMPLES = (
    "import json, subprocess, sys",
    '"""MyNet',
    "class SmoothedLinear",
    "def cohen_kappa",
    '"cohen_kappa": Fur',
    "Protocol(",
    "def _read(",
    "family: timm",
    "named_weights:",
    "# mine.yaml: ",
    "feature_fps: ",
)


def test_every_example_is_tried():
    found = [text for path in DOCUMENTS for language in ("python", "yaml") for text in blocks(path, language)]
    assert [text for text in found if not text.startswith(EXAMPLES)] == []
    languages = re.findall(
        r"^ *```(\w+)$", "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS), flags=re.M
    )
    assert set(languages) == {"python", "yaml", "text"}  # text: what a command has printed


def example(first_words: str, name: str = "docs/contributing.md", language: str = "python") -> str:
    """The block of a document that begins so."""
    return next(text for text in blocks(ROOT / name, language) if text.startswith(first_words))


def test_the_example_of_a_measure_is_scikit_learns():
    names = {"np": np}
    exec(example("def cohen_kappa"), names)
    random = np.random.default_rng(1)
    true, predicted = random.integers(0, 4, (2, 300))
    predicted = np.where(random.random(300) < 0.5, true, predicted)
    found = names["cohen_kappa"](confusion_matrix(true, predicted, 4))
    assert found == pytest.approx(cohen_kappa_score(true, predicted))


def test_the_example_of_a_head_is_causal_and_of_the_contracts_shape():
    names: dict = {}
    exec("import torch.nn.functional as F\nfrom torch import Tensor\nfrom common.head.networks.layers import *", names)
    exec("from common.head.networks.layers import Head, TemporalConv, masked", names)
    exec(example("class SmoothedLinear"), names)
    head = names["SmoothedLinear"](6, 5, width=4).eval()
    features = torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(1))
    changed = features.clone()
    changed[:, :, 12:] += 1
    logits, others = head(features), head(changed)
    assert logits.shape == (1, 2, 5, 20)
    assert torch.equal(logits[..., :12], others[..., :12])
    assert not torch.equal(logits, others)


def test_the_example_of_a_family_keeps_the_contract(monkeypatch):
    names: dict = {}
    exec(example('"""MyNet'), names)
    config = read_encoder_config(ROOT / "models" / "ColorHistogram" / "config.yaml")
    module = mock.Mock(build=names["build"])
    monkeypatch.setattr("common.encoders.base.load_family", lambda name: module)
    encoder = build_encoder(config, RANDOM)
    encoder.prepare(torch.device("cpu"))
    assert breaches(encoder) == []


def test_the_lines_of_a_measure_are_entries_of_its_dicts():
    counted = np.array([[3, 1], [0, 2]])
    names = {"np": np, "metrics": mock.Mock(), "pooled": counted, "FurtherMeasure": FurtherMeasure}
    exec(example("def cohen_kappa"), names)
    names["metrics"].cohen_kappa = names["cohen_kappa"]
    titled, measured = (eval(f"{{{line}\n}}", names) for line in example('"cohen_kappa": Fur').splitlines())
    assert titled.keys() == measured.keys()
    assert {each.unit for each in titled.values()} <= {each.unit for each in FURTHER_MEASURES.values()}
    assert measured["cohen_kappa"] == pytest.approx((5 / 6 - 1 / 2) / (1 - 1 / 2))  # by chance (4 x 3 + 2 x 3) / 36


def test_the_example_of_a_protocol_means_over_videos():
    protocol = eval(example("Protocol("), {"Protocol": Protocol, "SegmentRule": SegmentRule})
    assert protocol.name not in PROTOCOLS
    said = methods_sentence(protocol, "background")
    assert said.startswith("Protocol videos: Accuracy, ")
    assert "F1@50 and mIoU are computed per video and then averaged. " in said
    scores = [VideoScore(np.array([0, 1, 1]), np.array([0, predicted, 1]), 2, background=0) for predicted in (0, 1)]
    assert summarise(scores, protocol)["accuracy"] == pytest.approx((2 / 3 + 1) / 2)


def test_the_example_of_a_release_reads_labels_of_its_layout(tmp_path):
    names = dict(vars(autolaparo))
    exec(example("def _read("), names)
    for path, text in (("labels/01.txt", "Frame\tPhase\n1\t1\n2\t7\n"), ("videos/01.mp4", "")):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).write_text(text)
    (entry,) = names["_read"](Reading(autolaparo.RELEASES[0], tmp_path, mock.Mock()))
    assert (entry.name, entry.media) == ("01", tmp_path / "videos" / "01.mp4")
    assert entry.labels() == ["Preparation", "Washing"]


def test_the_examples_of_configs_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(example("family: timm", "docs/encoders.md", "yaml"))
    assert read_encoder_config(path).feature_dim == 768
    of_endovit = (ROOT / "models" / "EndoViT" / "config.yaml").read_text()
    path.write_text(of_endovit + example("named_weights:", "docs/encoders.md", "yaml"))
    assert read_encoder_config(path).named_weights.keys() == {"timm", "large"}


def test_the_examples_of_data_sets_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(example("# mine.yaml", "data/README.md", "yaml"))
    assert described_release(path).title == "MySet"
    dataset = Dataset(tmp_path)
    dataset.description.write_text(example("feature_fps", "data/README.md", "yaml"))
    assert (read_description(dataset).feature_fps, read_description(dataset).label_fps) == (5, 25)
