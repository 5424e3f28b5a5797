"""The blocks of commands in README.md, docs/ and data/README.md, run line by line as they stand, in a small world of what they name.

The world has made clips under the names of the documents (`VIDEOS`, `case_7.mp4`), and in every model folder the colour histogram,
which has no network. A line is run unless `NOT_RUN` says why not, so a new block is run by itself. Where one fails, it fails for
whoever types it: put the document right. Options of the lines that are not run are held by `test_docs_commands.py`.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest

from common import extract_features, run_k_folds, train
from common.dataset.releases import cholec80 as cholec80_phases
from common.reports import written
from tests.conftest import CHECKOUT, write_clip
from tests.test_docs_commands import blocks, lines_of_commands

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform == "win32", reason="the blocks are for a POSIX shell"),
]
README = "README.md"
DOCUMENTS = [
    *sorted(f"docs/{path.name}" for path in (CHECKOUT / "docs").glob("*.md") if path.name != "commands.md"),
    "data/README.md",
]
# what a line begins with, and why it is not run here
NOT_RUN = {
    r"make ": "the suite itself, or minutes of drawing",
    r"python3 -m venv |pip install ": "the package registry",
    r"sbatch ": "a cluster: tests/slurm submits these scripts",
    r"torchrun |python ssl_pretrain_|python finetune_lora\.py ": "networks of a release: tests/pretrain has tiny ones",
    r"python -m common\.weights prefetch |python -m common\.new_encoder hf:": "a download",
    r"python -m common\.new_encoder (timm:vit_small|torchvision:)": "larger ones of the kind that docs/contributing.md has",
    r"python -m common\.predict_video (0|rtsp:\S+|/dev/video2|tcp:\S+) ": "a camera: tests/common/test_online.py has streams",
    r"ffmpeg |LABEL_STUDIO_LOCAL": "a program that stays open: make test-tools opens it",
    r"python -m common\.segment |python data/import_dataset\.py CaDIS ": "a network: tests/common/test_segment.py has a tiny one",
    r"python -m pytest ": "the suite runs them",
    r"python docs/make_commands\.py": "it writes into the checkout: tests/test_docs.py compares",
}
# what would take long or ask for a network, and what is run in its place
SMALLER = {
    "--num_epochs 100": "--num_epochs 2",
    "--features_dim 1024": "--features_dim 48",  # of the colour histogram
    " --lora_path ../../pretrain/checkpoints/vjepa2-l/best_lora": "",
    "--acquire random,coverage,uncertainty --rounds 5": "--acquire coverage,uncertainty --rounds 2 --draws 1",
}
# what the text around a line says of it, or the lines of another document: run before it
BEFORE = {
    r"python -m common\.prelabel theatre": ["rm -rf theatre_elan"],
    r"python data/import_dataset\.py autolaparo FOLDER": ["ln -s releases/AutoLaparo FOLDER"],
    r"python data/import_dataset\.py Cholec80": ["rm -f FOLDER && ln -s releases/Cholec80 FOLDER"],
    r"python data/prepare_sics155\.py FOLDER$": ["rm -f FOLDER && ln -s FOLDER_OF_THE_RELEASE FOLDER"],
    r"python -m common\.train --action predict .*--test_dataset CATARACTS": [
        "cp -r data/mine data/Cataracts-1K && mv data/Cataracts-1K/features/EfficientNet-Lite0 data/Cataracts-1K/features/Base",
        "cp -r data/Cataracts-1K data/CATARACTS",
        "python generate_k_folds.py Cataracts-1K 5",
        "python -m common.train --model Base --dataset Cataracts-1K --split 1",
        r"printf 'incision: incision\ntunnel: tunnel\n' > map.yaml",
    ],
    r"python -m common\.extract_features .*--dataset sample": [  # after `make demo`
        "cp -r data/mine data/sample && rm -r data/sample/features",
        "python generate_k_folds.py sample 5",
        "python -m common.extract_features --model ColorHistogram --dataset sample",
        "python -m common.run_k_folds --model ColorHistogram --dataset sample --no_floors",
    ],
    r"python -m common\.run_k_folds --model EfficientNet-Lite0 --folds 5 --causal": [
        "python -m common.extract_features --model EfficientNet-Lite0"
    ],
    r'mkdir -p "data/NAME/features': [
        "cp -r data/mine data/NAME && rm -r data/NAME/features",
        "python generate_k_folds.py NAME 5",
        "mkdir their_features && cp data/mine/features/EfficientNet-Lite0/*.npy their_features",
    ],
}
SMALL = "num_epochs: 2\nnum_layers_PG: 3\nnum_layers_R: 2\nnum_R: 1\nnum_f_maps: 8\n"
PHASES = {"background": (40, 40, 40), "incision": (200, 60, 60), "tunnel": (60, 60, 200)}
FPS = 25
OURS = [f"BL_000{number}" for number in range(1, 7)]
THEIRS = (  # the same clips as videos of releases, of every part of the lists that are used
    [f"BN_000{number}" for number in range(1, 7)],
    ["01", "02", "11", "15", "16", "17"],
    ["video01", "video02", "video41", "video42", "video49", "video50"],
)


def clip(path: Path, seed: int) -> list[str]:
    """Write a video of the phases, with noise, and return the phase of each frame."""
    random = np.random.default_rng(seed)
    phases = np.repeat(list(PHASES), [20, 22 + seed, 24]).tolist()
    write_clip(path, [np.uint8(PHASES[phase] + random.integers(0, 40, (48, 64, 3))) for phase in phases], fps=FPS)
    return phases


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(target, path)


def write_clips(root: Path) -> None:
    """Videos and labels of one's own, and those of SICS-155, AutoLaparo and Cholec80 in the form of their releases."""
    labels = {name: clip(root / "VIDEOS" / f"{name}.mp4", seed) for seed, name in enumerate(OURS)}
    for name, phases in labels.items():
        write_lines(root / "LABELS" / f"{name}.txt", phases)
    write_lines(root / "MAPPING", [f"{number} {phase}" for number, phase in enumerate(PHASES)])
    for seed, name in enumerate(("case_7", "theatre/a", "theatre/b"), start=len(OURS)):
        clip(root / f"{name}.mp4", seed)
    sics155, autolaparo, cholec80 = (
        root / "FOLDER_OF_THE_RELEASE",
        root / "releases/AutoLaparo",
        root / "releases/Cholec80",
    )
    for (name, phases), validated, of_autolaparo, of_cholec80 in zip(labels.items(), *THEIRS, strict=True):
        for part, called in (("SICS_155_train/train", name), ("SICS_155_validation/val", validated)):
            write_lines(sics155 / part / "groundTruth" / f"{called}.txt", phases)
            link(sics155 / part / "videos" / f"{called}.mp4", root / "VIDEOS" / f"{name}.mp4")
        link(autolaparo / "task1/videos" / f"{of_autolaparo}.mp4", root / "VIDEOS" / f"{name}.mp4")
        link(cholec80 / "videos" / f"{of_cholec80}.mp4", root / "VIDEOS" / f"{name}.mp4")
        ids = [list(PHASES).index(phase) for phase in phases]
        seconds = range(0, len(phases), FPS)
        rows = [f"{number}\t{ids[frame] + 1}" for number, frame in enumerate(seconds, start=1)]
        write_lines(autolaparo / "task1/labels" / f"label_{of_autolaparo}.txt", ["Frame\tPhase", *rows])
        rows = [f"{frame}\t{cholec80_phases.PHASES.names[index]}" for frame, index in enumerate(ids)]
        write_lines(cholec80 / "phase_annotations" / f"{of_cholec80}-phase.txt", ["Frame\tPhase", *rows])
        rows = ["\t".join(map(str, [frame, *np.eye(7, dtype=int)[ids[frame]]])) for frame in seconds]
        header = "\t".join(["Frame", *cholec80_phases.TOOLS])
        write_lines(cholec80 / "tool_annotations" / f"{of_cholec80}-tool.txt", [header, *rows])


class World:
    """A folder with what the documents name, and commands that run in it."""

    def __init__(self, root: Path, patched: pytest.MonkeyPatch):
        self.root = self.folder = root
        self.patched = patched
        write_clips(root)
        (root / "small.yaml").write_text(SMALL)
        (root / "pretrain").mkdir()
        for config in sorted((CHECKOUT / "models").glob("*/config.yaml")):
            (root / "models" / config.parent.name).mkdir(parents=True)
            shutil.copy(CHECKOUT / "models" / "ColorHistogram" / "config.yaml", root / "models" / config.parent.name)

    def walk(self, document: str) -> None:
        """Run the blocks of a document, each from the root."""
        for lines in lines_of_commands(CHECKOUT / document):
            self.folder = self.root
            for line in filter(None, lines):
                self.line(line)

    def line(self, line: str) -> None:
        """Run a line of a document and what is to come before it, unless it is one that is not run."""
        for begun, others in BEFORE.items():
            if re.match(begun, line):
                for other in others:
                    self.run(other)
        if not any(re.match(start, line) for start in NOT_RUN):
            for said, small in SMALLER.items():
                line = line.replace(said, small)
            self.run(line)

    def run(self, line: str) -> None:
        """AssertionError, or the command's own, where it fails."""
        words = shlex.split(line)
        if words[0] == "cd":
            self.folder = (self.folder / words[1]).resolve()
        elif words[0] == "python":
            self.patched.chdir(self.folder)
            code = self.python(words[1:])
            assert not code, f"{line}: exit code {code}"
        else:
            done = subprocess.run(["bash", "-c", line], cwd=self.folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stderr}"

    def python(self, words: list[str]) -> int | None:
        """The command's own `main`, in this process."""
        if words[0] == "extract_features.py":
            return extract_features.main(words[1:], model=self.folder.name)
        if words[0] == "-m":
            command, given = importlib.import_module(words[1]), words[2:]
        else:
            script, given = CHECKOUT / (self.folder / words[0]).relative_to(self.root), words[1:]
            self.patched.syspath_prepend(script.parent)  # as for its neighbours, which it imports by name
            command = importlib.import_module(script.stem)
        if command in (train, run_k_folds):
            given = [*given, "--config", str(self.root / "small.yaml")]
        return command.main(given)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world in which README.md has been followed from top to bottom."""
    with pytest.MonkeyPatch.context() as patched:
        made = World(tmp_path_factory.mktemp("world"), patched)
        patched.setenv("SICS155_ROOT", str(made.root))
        # pictures are half of a comparison's time, and tests/test_first_hour.py has them
        patched.setattr(written, "PICTURES", {})
        patched.setattr(matplotlib.figure.Figure, "savefig", lambda self, target, **options: None)
        made.walk(README)
        yield made


@pytest.mark.slow
def test_the_readme_leads_to_a_comparison_of_sics155(world):
    assert (world.root / "comparison_results" / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_run_as_they_stand(world, document):
    world.walk(document)


def test_what_is_not_run_is_there():
    """An entry of a line that has gone would hide the next that begins so."""
    lines = [line for name in (README, *DOCUMENTS) for block in lines_of_commands(CHECKOUT / name) for line in block]
    assert [start for start in NOT_RUN if not any(re.match(start, line) for line in lines)] == []
    assert [start for start in BEFORE if not any(re.match(start, line) for line in lines)] == []
    assert [said for said in SMALLER if not any(said in line for line in lines)] == []


def test_the_program_that_reads_answers(world):
    """The example of docs/live.md, with a file in place of the camera and phases that a small head is less sure of."""
    (program,) = blocks(CHECKOUT / "docs" / "live.md", "python")
    world.folder = world.root
    for line in lines_of_commands(CHECKOUT / "docs" / "live.md")[0]:  # trains the head
        world.line(line)
    head = world.root / "models/EfficientNet-Lite0/checkpoints/SICS155/causal/split_val/last.pt"
    for said, here in (("rtsp://theatre-2.local/live", "case_7.mp4"), ("last.pt", str(head)), ("> 0.8", "> 0")):
        assert said in program
        program = program.replace(said, here)
    done = subprocess.run([sys.executable, "-c", program], cwd=world.root, capture_output=True, text=True)
    assert re.match(r"\d+\.\d s: \w+ \(known \d+\.\d s later\)\n", done.stdout), done.stderr
