"""Make a folder of what this version's commands write, so that tests of later versions can prove that they still read it.

    python tests/make_artefacts.py tests/artefacts/0.2.0

The folder is a root as `SICS155_ROOT` names one: `data/`, `models/`, `pretrain/checkpoints/`, besides `commands.json`
(the commands that made it, which tests repeat) and a README.md. Videos are drawn, networks are tiny and start from random
weights. Everything runs on the CPU with one thread, with the folder as current folder and relative paths, so that no
record names the machine. Takes two minutes.

Nothing of the project is imported, only its commands are started: their names and flags are stable, modules move.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from transformers import VJEPA2Config, VJEPA2Model

CHECKOUT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 120

FPS = 10
HEIGHT, WIDTH = 48, 64
PHASES = {"background": (60, 60, 60), "incision": (170, 70, 60), "wash": (60, 160, 80), "suture": (70, 80, 180)}
PREFIXES = ("BL", "SD")
NUM_FOLDS = 2
SECOND_SEED = 7

DATASET, ANNOTATED, UNLABELLED = "mini", "annotated", "unlabelled"
CLASSES_FILE = "classes.yaml"
NUM_EPOCHS, INTERRUPTED_FROM = 30, 16  # few epochs left: they differ little on another CPU
# a head small enough for a file of 80 kB that still learns the drawn phases
HEAD = (
    "--num_layers_PG", "3", "--num_layers_R", "2", "--num_R", "1", "--num_f_maps", "8",
    "--num_epochs", str(NUM_EPOCHS), "--lr", "2e-2",
)  # fmt: skip
START = "start"
# a quarter of the size of `vjepa2-tiny`, whose folder under models/ takes any network of its width
START_NETWORK = {
    "crop_size": 64, "patch_size": 8, "hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3,
    "mlp_ratio": 1.0, "pred_hidden_size": 12, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2,
    "pred_mlp_ratio": 1.0,
}  # fmt: skip
STAGE_1, STAGE_2 = "pretrain/checkpoints/ssl/vjepa2-tiny", "pretrain/checkpoints/vjepa2-tiny"
STAGE_2_INTERRUPTED = "pretrain/checkpoints/vjepa2-tiny-interrupted"

README = """# Artefacts of version {version}

What the commands of this version wrote; `tests/test_artefacts.py` proves that the present ones still read it. Nothing in
here is of use otherwise: **the data are synthetic** (drawn videos, no surgery) **and every network is tiny and was trained
from random weights** for a few steps. Made by `python tests/make_artefacts.py`, with the commands in `commands.json`.

| what | made by |
|---|---|
| `data/mini/`: {num_videos} drawn videos with labels, 2 of them in `groundTruth_val/` | `make_artefacts.py` itself |
| `data/mini/splits/`, `groundTruth_split_*/`: {num_folds} folds | `generate_k_folds.py` |
| `data/annotated/`, `data/unlabelled/`, `classes.yaml`: what Stages 2 and 1 learn from, drawn; `start/`: random weights | `make_artefacts.py` itself |
| `data/mini/features/ColorHistogram`, `@sampled`: every frame; 5 frames a second in float16 | `models/ColorHistogram/extract_features.py` |
| `data/mini/features/ColorHistogram@foreign`: the same arrays without sidecars, as from elsewhere | copied |
| `data/mini/features/V-JEPA2-Tiny`, `@ssl`, `@strided`: adapter on Stage 1; Stage 1 alone in tokens; random weights with a stride | `models/V-JEPA2-Tiny/extract_features.py` |
| `models/*/checkpoints/mini/`, `models/*/results/mini/`: all folds, of ColorHistogram with a second seed too | `common.run_k_folds` |
| `models/ColorHistogram/checkpoints/mini/interrupted/`: stopped after {head_epoch} of {num_epochs} epochs; undisturbed it is the default run's fold 1 | `common.train`, SIGINT |
| `pretrain/checkpoints/ssl/vjepa2-tiny/`: Stage 1; `step_*.pt` is of the middle, the rest of the end | `pretrain/ssl_pretrain_vjepa2.py` |
| `pretrain/checkpoints/vjepa2-tiny/`: Stage 2, finished | `pretrain/finetune_lora.py` |
| `pretrain/checkpoints/vjepa2-tiny-interrupted/`: the same stopped after step {lora_step} of {lora_steps} | `pretrain/finetune_lora.py`, SIGTERM |

Left out: copies of `models/*/config.yaml`, which belong to the code, and `video_index.json`, a cache of absolute paths.
`groundTruth_split_*/` holds copies in place of links. Paths are relative because every command was started in this folder.
"""


def main(argv: list[str] | None = None) -> int:
    """Make the folder; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, metavar="OUTPUT_FOLDER", help="new or empty folder, usually of a version")
    output = parser.parse_args(argv).output.resolve()
    if output.exists() and any(output.iterdir()):
        parser.error(f"{output}: expected a new or empty folder, so that nothing of another version is mixed in")
    for config in sorted((CHECKOUT / "models").glob("*/config.yaml")):
        copy(config, output / "models" / config.parent.name / config.name)
    draw_data(output / "data")
    write_classes(output / CLASSES_FILE)
    write_start_weights(output / START)
    commands = Commands(output)
    make_head_runs(commands)
    make_pretraining(commands)
    remove_what_is_not_kept(output)
    write_json(output / "commands.json", commands.words)
    write_readme(output)
    require_neutral(output)
    size = sum(path.stat().st_size for path in files_of(output))
    print(f"{output}: {len(list(files_of(output)))} files, {size / 1e6:.2f} MB")
    return 0


# --- commands -----------------------------------------------------------------------------------------------------


@dataclass
class Commands:
    """Starts commands of this checkout in the folder `root` and keeps their words by name."""

    root: Path
    words: dict[str, list[str]] = field(default_factory=dict)

    def run(self, name: str, *words: str) -> None:
        """Run a command to its end."""
        print(f"{name}: {' '.join(words)}", flush=True)
        subprocess.run(self._start(name, words), cwd=self.root, env=self._environment(), check=True)

    def interrupt(self, name: str, *words: str, once: Callable[[], bool], by: signal.Signals) -> None:
        """Start a command and send it a signal as soon as `once` holds; it must end as one that has saved."""
        print(f"{name}, interrupted: {' '.join(words)}", flush=True)
        process = subprocess.Popen(self._start(name, words), cwd=self.root, env=self._environment())
        deadline = time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and not once() and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(by)
        code = process.wait()
        if code != 128 + by:
            sys.exit(f"{name}: ended with {code} before it could be interrupted, expected {128 + by}; start again")

    def _start(self, name: str, words: tuple[str, ...]) -> list[str]:
        """Modules are named by `-m`, scripts by their path in the checkout."""
        self.words[name] = list(words)
        first = words[0] if words[0] == "-m" else str(CHECKOUT / words[0])
        return [sys.executable, first, *words[1:]]

    def _environment(self) -> dict[str, str]:
        # of a cluster's job a command would take its share only
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        return inherited | {
            "SICS155_ROOT": str(self.root),
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }


def make_head_runs(commands: Commands) -> None:
    """Folds, features that need no network, heads on them."""
    commands.run("folds", "generate_k_folds.py", DATASET, str(NUM_FOLDS))
    extract = ("models/ColorHistogram/extract_features.py", "--dataset", DATASET, "--device", "cpu")
    commands.run("extract", *extract)
    commands.run("extract_sampled", *extract, "--fps", "5", "--dtype", "float16", "--variant", "sampled")
    features = commands.root / "data" / DATASET / "features"
    for path in sorted((features / "ColorHistogram").glob("*.npy")):
        copy(path, features / "ColorHistogram@foreign" / path.name)
    shared = ("--dataset", DATASET, "--model", "ColorHistogram", "--device", "cpu", *HEAD)
    folds = ("-m", "common.run_k_folds", "--folds", str(NUM_FOLDS), *shared)
    commands.run("run_k_folds", *folds)
    commands.run("run_k_folds_second_seed", *folds, "--seed", str(SECOND_SEED))
    last = head_checkpoint(commands.root, "interrupted")
    train = ("-m", "common.train", "--action", "train", "--split", "1", "--run", "interrupted", *shared)

    def is_late() -> bool:
        return last.is_file() and read_checkpoint(last)["epoch"] >= INTERRUPTED_FROM

    commands.interrupt("train_interrupted", *train, once=is_late, by=signal.SIGINT)
    if read_checkpoint(last)["epoch"] == NUM_EPOCHS:
        sys.exit(f"{last}: of a finished training; start again")


def make_pretraining(commands: Commands) -> None:
    """The three stages with one tiny network, and heads on its features."""
    stage_1 = (
        "--model", "vjepa2-tiny", "--init", START, "--videos", UNLABELLED, "--exclude", DATASET, ANNOTATED,
        "--max_steps", "8", "--save_every", "4", "--batch_size", "2", "--fps", "5", "--learning_rate", "1e-3",
        "--monitor_every", "4", "--monitor_samples", "4", "--num_workers", "0", "--device", "cpu",
    )  # fmt: skip
    commands.run("pretrain", "pretrain/ssl_pretrain_vjepa2.py", *stage_1)
    stage_2 = (
        "--model", "vjepa2-tiny", "--datasets", ANNOTATED, "--classes", CLASSES_FILE, "--fps", "5", "--rank", "2",
        "--grid_seconds", "0.5", "--validation_share", "0.34", "--epochs", "3", "--steps_per_epoch", "4",
        "--batch_size", "2", "--learning_rate", "1e-2", "--num_workers", "0", "--device", "cpu",
    )  # fmt: skip
    commands.run("finetune", "pretrain/finetune_lora.py", *stage_2)
    stopped = commands.root / STAGE_2_INTERRUPTED
    again = ("pretrain/finetune_lora.py", *stage_2, "--output", STAGE_2_INTERRUPTED)
    commands.interrupt("finetune_interrupted", *again, once=(stopped / "metrics.csv").is_file, by=signal.SIGTERM)
    extract = ("models/V-JEPA2-Tiny/extract_features.py", "--dataset", DATASET, "--device", "cpu")
    commands.run("extract_strided", *extract, "--weights", "random", "--stride", "4", "--variant", "strided")
    # named by relative paths: what a config or a checkpoint implies is recorded with the path of this folder
    export = ("--ssl_checkpoint", STAGE_1)
    commands.run("extract_export", *extract, *export, "--mode", "tokens", "--variant", "ssl")
    commands.run("extract_adapter", *extract, "--lora_path", f"{STAGE_2}/best_lora", *export)
    folds = ("-m", "common.run_k_folds", "--folds", str(NUM_FOLDS), "--dataset", DATASET, "--model", "V-JEPA2-Tiny")
    commands.run("run_k_folds_adapter", *folds, "--device", "cpu", *HEAD)


def head_checkpoint(root: Path, run: str) -> Path:
    """The checkpoint of a run's first fold."""
    return root / "models" / "ColorHistogram" / "checkpoints" / DATASET / run / "split_1" / "last.pt"


def read_checkpoint(path: Path) -> dict[str, object]:
    """What a checkpoint holds."""
    return torch.load(path, weights_only=True)


# --- data ---------------------------------------------------------------------------------------------------------


def draw_data(folder: Path) -> None:
    """The scored data set, the annotated one of Stage 2 and the videos of Stage 1; no video is in two of them."""
    mini, annotated, unlabelled = (folder / name for name in (DATASET, ANNOTATED, UNLABELLED))
    names = [f"{prefix}_{number}" for prefix in PREFIXES for number in (1, 2, 3)]
    for seed, name in enumerate(names):
        draw_video(mini, name, seed=seed, num_frames=44 + 4 * seed)
    for seed, prefix in enumerate(PREFIXES, 20):
        draw_video(mini, f"{prefix}_8", seed=seed, num_frames=48, labels="groundTruth_val")
    cases = [f"case_{number}" for number in range(4)]
    for seed, name in enumerate(cases, 40):
        draw_video(annotated, name, seed=seed, num_frames=40)
    for seed, name in enumerate(("film_1", "film_2"), 60):
        draw_video(unlabelled, name, seed=seed, num_frames=40, labels=None)
    for dataset in (mini, annotated):
        lines = (f"{index} {name}\n" for index, name in enumerate(PHASES))
        write_text(dataset / "mapping.txt", "".join(lines))
    for dataset in (mini, annotated, unlabelled):
        # what marks a data set as drawn, in every report
        write_json(dataset / "sample.json", {"note": "synthetic: drawn by tests/make_artefacts.py, no surgery"})
    videos = {name: {"fps": float(FPS), "stratum": ""} for name in cases}
    write_json(annotated / "manifest.json", {"release": ANNOTATED, "videos": videos})


def write_classes(path: Path) -> None:
    """The table of Stage 2: every phase but the background is a class."""
    classes = [name for name in PHASES if name != "background"]
    lines = [f"    {name}: {name if name in classes else 'null'}\n" for name in PHASES]
    write_text(path, f"classes: [{', '.join(classes)}]\ndatasets:\n  {ANNOTATED}:\n{''.join(lines)}")


def write_start_weights(folder: Path) -> None:
    """What Stage 1 starts from: a V-JEPA 2 with random weights in a folder of transformers."""
    torch.manual_seed(0)
    VJEPA2Model(VJEPA2Config(**START_NETWORK)).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def draw_video(dataset: Path, name: str, *, seed: int, num_frames: int, labels: str | None = "groundTruth") -> None:
    """A video of all phases, each in its colour with a square that moves through, and the file of its labels."""
    random = np.random.default_rng(seed)
    order = [0, *random.permutation([1, 2, 3]), 0]
    phase_ids = np.repeat(order, random.multinomial(num_frames - 25, [0.2] * 5) + 5)
    colours = np.array(list(PHASES.values())) + random.integers(-15, 16, (len(PHASES), 3))
    frames = (draw_frame(colours[phase], time) for time, phase in enumerate(phase_ids))
    write_video(dataset / "videos" / f"{name}.mp4", frames)
    if labels:
        lines = (f"{list(PHASES)[phase]}\n" for phase in phase_ids)
        write_text(dataset / labels / f"{name}.txt", "".join(lines))


def draw_frame(colour: np.ndarray, time: int) -> np.ndarray:
    """One frame `(HEIGHT, WIDTH, 3)` uint8."""
    image = np.full((HEIGHT, WIDTH, 3), colour) + np.linspace(-20, 20, WIDTH)[:, None]
    left = 2 * time % (WIDTH - 12)
    image[16:28, left : left + 12] += 40
    return image.clip(0, 255).astype(np.uint8)


def write_video(path: Path, frames: Iterator[np.ndarray]) -> None:
    """An H.264 file, the same bytes at every call."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "20", "preset": "fast"}
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


# --- what is kept -------------------------------------------------------------------------------------------------


def remove_what_is_not_kept(root: Path) -> None:
    """Leave what a person would have of an earlier version: see the README."""
    for config in (root / "models").glob("*/config.yaml"):
        config.unlink()
    (root / "pretrain" / "checkpoints" / "video_index.json").unlink(missing_ok=True)
    for link in [path for path in root.rglob("*") if path.is_symlink()]:
        target = link.resolve()
        link.unlink()
        copy(target, link)
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def write_readme(root: Path) -> None:
    """The README.md of the folder."""
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    lora, whole = (read_checkpoint(root / folder / "last.pt") for folder in (STAGE_2_INTERRUPTED, STAGE_2))
    text = README.format(
        version=version,
        num_videos=len(list((root / "data" / DATASET / "videos").iterdir())),
        num_folds=NUM_FOLDS,
        head_epoch=read_checkpoint(head_checkpoint(root, "interrupted"))["epoch"],
        num_epochs=NUM_EPOCHS,
        lora_step=lora["step"],
        lora_steps=whole["step"],
    )
    write_text(root / "README.md", text)


def require_neutral(root: Path) -> None:
    """Exit with the names of files that hold a path of this machine; tensors are stored as they are, so bytes tell."""
    forbidden = {str(path).encode() for path in (root, CHECKOUT, Path.home(), Path(sys.prefix)) if len(path.parts) > 1}
    named = [path for path in files_of(root) if any(word in path.read_bytes() for word in forbidden)]
    if named:
        sys.exit("these files name a folder of this machine: " + ", ".join(map(str, named)))


def files_of(root: Path) -> Iterator[Path]:
    """Every file below a folder."""
    return (path for path in sorted(root.rglob("*")) if path.is_file())


def copy(source: Path, target: Path) -> None:
    """Copy a file's content to a place whose folder may not be there yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with `\\n` line ends on every system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: object) -> None:
    """Write indented JSON."""
    write_text(path, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
