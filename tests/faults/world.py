"""A root of every kind of file that the project reads, small and sound, and the commands that read each of them.

It is made from the artefacts that the suite keeps: a drawn data set with features, heads and runs, and the stages of
pretraining with tiny networks. `TARGETS` names the files that are damaged, `Command` what must still hold then.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.releases import write_releases

CHECKOUT = Path(__file__).resolve().parents[2]
ARTEFACTS = CHECKOUT / "tests" / "artefacts" / "0.1.0"
MODELS = ("ColorHistogram", "V-JEPA2-Tiny", "V-JEPA2-ViT-L")  # the last one's window is that of Stage 1
LEFT_OUT = ("ColorHistogram@*", "V-JEPA2-Tiny*", "seed7", "README.md", "commands.json")  # of the artefacts
CPU = ("--device", "cpu")
MINI = ("--dataset", "mini")
HISTOGRAM = (*MINI, "--model", "ColorHistogram")
LAYERS = ("--num_layers_PG", "3", "--num_layers_R", "2", "--num_R", "1", "--num_f_maps", "8", "--lr", "2e-2")
HEAD = (*HISTOGRAM, *CPU, *LAYERS)
RUN = "models/ColorHistogram/results/mini/split_1"
SSL = "pretrain/checkpoints/ssl/vjepa2-tiny"  # of Stage 1
TINY = ("--model", "vjepa2-tiny", "--num_workers", "0", *CPU)


@dataclass(frozen=True)
class Command:
    """A command: the module whose `main` it is, its words, and files that it leaves whatever one input is like.

    `keywords` are those of `main`. `skips_values`: it needs no value of what is there already, or not every one.
    """

    module: str
    words: tuple[str, ...]
    leaves: tuple[str, ...] = ()
    keywords: tuple[tuple[str, str], ...] = ()
    skips_values: bool = False


@dataclass(frozen=True)
class Target:
    """A file of the world (its path), its format, the commands that read it, and how many damages of it are tried.

    `also` are names by which a message may call it besides its own, such as that of its folder.
    """

    path: str
    form: str
    commands: tuple[Command, ...]
    most: int = 30
    also: tuple[str, ...] = ()


def extract(dataset: str, *words: str, model: str = "ColorHistogram", leaves: Sequence[str] = ()) -> Command:
    """An extraction by the folder of a model."""
    words = ("--dataset", dataset, *CPU, *words)
    return Command("common.extract_features", words, tuple(leaves), (("model", model),), skips_values=True)


EVALUATE = Command(
    "common.evaluation", ("data/mini/groundTruth_split_1", RUN, "--mapping_path", "data/mini/mapping.txt")
)
AUDIT = Command("common.audit", ("mini", "--json", "audit.json"), ("audit.json",))
TRAIN = Command("common.train", ("--action", "train", "--split", "1", "--run", "new", "--num_epochs", "1", *HEAD))
EVALUATE_VAL = Command(
    "common.evaluation", ("data/mini/groundTruth_val", "predictions_val", "--mapping_path", "data/mini/mapping.txt")
)
RESUME = Command(
    "common.train",
    ("--action", "train", "--split", "1", "--run", "interrupted", "--num_epochs", "30", "--resume", *HEAD),
)
PREDICT = Command("common.train", ("--action", "predict", "--split", "1", "--num_epochs", "30", *HEAD))
NEW_VIDEO = Command("common.predict_video", ("data/mini/videos/BL_8.mp4", "--split", "1", *HISTOGRAM, *CPU))
FOLDS = Command("generate_k_folds", ("mini", "2"))
RUN_FOLDS = Command("common.run_k_folds", ("--folds", "2", "--num_epochs", "30", *HEAD))
SUMMARY = Command("common.kfold_summary", ("--folds", "2", "--verbose", *HISTOGRAM))
EXCEL = Command("common.export_to_excel", HISTOGRAM)
COMPARE = Command("compute_results", ("--compare-kfold", "2", *MINI))
REPRODUCE = Command("common.run_k_folds", ("--reproduce", f"{RUN}/run.json", *CPU))
EXTRACT = extract("mini")
EXTRACT_SSL = extract("short", "--ssl_checkpoint", SSL, "--variant", "ssl", model=MODELS[1])
EXTRACT_FILE = extract("short", "--weights", "weights/tiny.pth", "--variant", "file", model=MODELS[1])
EXTRACT_SAFE = extract("short", "--weights", "weights/tiny.safetensors", "--variant", "file", model=MODELS[1])
EXTRACT_PARTS = extract("short", "--weights", "weights/parts", "--variant", "parts", model=MODELS[1])
EXTRACT_BIN = extract("short", "--weights", "weights/bin", "--variant", "bin", model=MODELS[1])
EXTRACT_ADAPTED = extract("short", model=MODELS[1])
EXTRACT_ADAPTED_BIN = extract(
    "short", "--lora_path", "weights/adapter", "--ssl_checkpoint", SSL, "--variant", "theirs", model=MODELS[1]
)
WEIGHTS = Command("common.weights", ("list",))
STAGE_1 = Command(
    "pretrain.ssl_pretrain_vjepa2",
    (*TINY, "--init", "start", "--videos", "unlabelled", "--exclude", "mini", "annotated", "--max_steps", "8",
     "--save_every", "4", "--batch_size", "2", "--fps", "5", "--learning_rate", "1e-3", "--monitor_every", "4",
     "--monitor_samples", "4"),
)  # fmt: skip
STAGE_1_LONGER = Command(STAGE_1.module, (*STAGE_1.words[:-4], "--monitor_every", "0", "--output", "pretrain/stopped"))
STAGE_1_CLUSTERS = Command(STAGE_1.module, (*STAGE_1_LONGER.words, "--clusters", "clusters.json"))
PACKED_SET = ("--videos", "unlabelled", "--output", "packed", "--fps", "5", "--num_processes", "0")
CHECK_PACKED = Command("pretrain.pack_videos", (*PACKED_SET, "--check"))
STAGE_1_PACKED = Command(
    STAGE_1.module,
    (*TINY, "--init", "start", "--videos", "packed/unlabelled", "--max_steps", "1", "--batch_size", "2", "--fps", "5",
     "--monitor_every", "0", "--output", "pretrain/new"),
    skips_values=True,
)  # fmt: skip
STAGE_1_CONFIG = Command(STAGE_1.module, (*TINY, "--output", "pretrain/new", "--config", "stage_1.yaml"))
STAGE_2 = Command(
    "pretrain.finetune_lora",
    (*TINY, "--datasets", "annotated", "--classes", "classes.yaml", "--fps", "5", "--rank", "2", "--grid_seconds", "0.5",
     "--validation_share", "0.34", "--epochs", "3", "--steps_per_epoch", "4", "--batch_size", "2",
     "--learning_rate", "1e-2", "--output", "pretrain/checkpoints/vjepa2-tiny-interrupted"),
)  # fmt: skip
LISTED = Command(TRAIN.module, (*TRAIN.words, "--splits", "theirs"))
OFFICIAL = Command(TRAIN.module, (*TRAIN.words, "--splits", "official"))
GRU = Command(TRAIN.module, (*TRAIN.words, "--config", "gru.yaml"))
TRANSFER = Command(PREDICT.module, (*PREDICT.words, "--test_dataset", "other", "--classes", "map.yaml"))
FOREIGN = Command(
    "compute_results", ("--compare-kfold", "2", *MINI, "--with_predictions", "Theirs=predictions", "--share")
)
VERIFY = Command("compute_results", ("--verify", "table.zip"))
IMPORT_101 = Command("pretrain.cataract101.import_annotations", ("releases/101", "--annotations_only"))
IMPORT_1K = Command("pretrain.cataracts1k.import_annotations", ("releases/1k", "--annotations_only"))
LABELS_ALONE = ("--annotations_only", "--no_probe")
IMPORT_TABLE = Command("data.import_dataset", ("--description", "releases/table.yaml", "releases/table", *LABELS_ALONE))
IMPORT_CHOLECT50 = Command("data.import_dataset", ("CholecT50", "releases/cholect50", "--no_probe"))
IMPORT_GRASP = Command("data.import_dataset", ("GraSP", "releases/grasp", "--no_probe"))
IMPORT_MULTIBYPASS = Command("data.import_dataset", ("MultiBypass140", "releases/multibypass", *LABELS_ALONE))
PREPARE = Command(
    "data.prepare_sics155",
    ("releases/sics", "--mapping", "data/mini/mapping.txt", "--patient_column", "patient", "--no_probe"),
    skips_values=True,
)

LEARNED = tuple(f"data/mini/features/ColorHistogram/{video}" for video in ("SD_1", "BL_1"))
ADAPTER = "pretrain/checkpoints/vjepa2-tiny/best_lora"
STOPPED = "pretrain/checkpoints/vjepa2-tiny-interrupted"
CONTAINERS = {
    "mp4": "libx264", "mov": "mpeg4", "mkv": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "ts": "libx264",
    "mpg": "mpeg2video", "flv": "flv1",
}  # fmt: skip


def clip_target(suffix: str) -> Target:
    """A video in one of the containers, extracted beside two sound ones whose features must come all the same."""
    leaves = [f"data/clips_{suffix}/features/ColorHistogram/{name}.npy" for name in ("a", "z")]
    command = extract(f"clips_{suffix}", leaves=leaves)
    return Target(f"data/clips_{suffix}/videos/middle.{suffix}", "video", (command,), 24, ("middle",))


TARGETS = (
    Target("data/mini/mapping.txt", "text", (EVALUATE, TRAIN, AUDIT, SUMMARY), 24, ("unknown phase",)),
    Target("data/mini/groundTruth/SD_1.txt", "text", (TRAIN, AUDIT), 24, ("SD_1",)),
    Target("data/mini/groundTruth/BL_1.txt", "text", (PREDICT, SUMMARY), 12, ("BL_1",)),
    Target(f"{RUN}/BL_1.txt", "text", (EVALUATE, SUMMARY, EXCEL), 20, ("BL_1", "split_1")),
    Target("data/mini/splits/train.split1.bundle", "text", (TRAIN, AUDIT), 22, ("splits", "groundTruth")),
    Target("data/mini/splits/folds.json", "json", (TRAIN, AUDIT, FOLDS), 24, ("splits",)),
    Target("data/mini/patients.csv", "csv", (FOLDS, TRAIN, AUDIT), 26),
    Target("data/mini/dataset.yaml", "yaml", (TRAIN, AUDIT, SUMMARY), 36),
    Target("class_weights.txt", "text", (Command(TRAIN.module, (*TRAIN.words, "--class_weights", "class_weights.txt")),), 22),
    Target("head.yaml", "yaml", (Command(TRAIN.module, (*TRAIN.words[:4], *HISTOGRAM, *CPU, "--num_epochs", "1", "--config", "head.yaml")),), 40),
    Target("models/ColorHistogram/config.yaml", "yaml", (EXTRACT, TRAIN, WEIGHTS), 40, ("ColorHistogram",)),
    Target(f"{RUN}/run.json", "json", (SUMMARY, RUN_FOLDS, REPRODUCE), 52, ("split_1", "no finished run of fold 1")),
    Target(f"{RUN}/BL_3.txt", "text", (COMPARE,), 3, ("BL_3", "split_1")),
    Target(f"{LEARNED[0]}.json", "json", (TRAIN, AUDIT, EXTRACT), 50, ("SD_1",)),
    Target(f"{LEARNED[0]}.npy", "npy", (TRAIN, AUDIT, EXTRACT), 50, ("SD_1",)),
    Target(f"{RUN}/BL_1.npy", "npy", (SUMMARY, EVALUATE), 36, ("BL_1", "split_1")),
    Target("models/ColorHistogram/checkpoints/mini/interrupted/split_1/last.pt", "torch", (RESUME,), 40),
    Target("models/ColorHistogram/checkpoints/mini/split_1/last.pt", "torch", (PREDICT, NEW_VIDEO), 50),
    Target("weights/tiny.pth", "torch", (EXTRACT_FILE,), 30),
    Target("weights/tiny.safetensors", "safetensors", (EXTRACT_SAFE,), 30),
    Target("weights/bin/pytorch_model.bin", "torch", (EXTRACT_BIN,), 14, ("weights/bin",)),
    Target("weights/parts/a.safetensors", "safetensors", (EXTRACT_PARTS,), 10, ("parts",)),
    Target("weights/parts/model.safetensors.index.json", "json", (EXTRACT_PARTS,), 30, ("parts",)),
    Target(f"{SSL}/export/config.json", "json", (EXTRACT_SSL, STAGE_2), 30, ("export",)),
    Target(f"{SSL}/export/model.safetensors", "safetensors", (EXTRACT_SSL,), 24, ("export",)),
    Target(f"{ADAPTER}/adapter_config.json", "json", (EXTRACT_ADAPTED,), 40, ("best_lora",)),
    Target(f"{ADAPTER}/adapter_model.safetensors", "safetensors", (EXTRACT_ADAPTED,), 24, ("best_lora",)),
    Target(f"{ADAPTER}/provenance.json", "json", (EXTRACT_ADAPTED,), 24, ("best_lora", "adapter")),
    Target("weights/adapter/adapter_model.bin", "torch", (EXTRACT_ADAPTED_BIN,), 20, ("adapter",)),
    Target(f"{SSL}/manifest.json", "json", (AUDIT,), 20),
    Target("pretrain/stopped/step_000004.pt", "torch", (STAGE_1_LONGER,), 12, ("stopped",)),
    Target("pretrain/stopped/metrics.jsonl", "text", (STAGE_1_LONGER,), 6),
    Target("pretrain/checkpoints/video_index.json", "json", (STAGE_1_CONFIG,), 10),
    Target("packed/unlabelled/packed.json", "json", (STAGE_1_PACKED, CHECK_PACKED), 16),
    Target("packed/unlabelled/film_1.json", "json", (STAGE_1_PACKED, CHECK_PACKED), 16, ("film_1",)),
    Target("packed/unlabelled/film_1.npy", "npy", (STAGE_1_PACKED, CHECK_PACKED), 16, ("film_1",)),
    Target("packed/unlabelled/film_1.tar", "video", (STAGE_1_PACKED, CHECK_PACKED), 16, ("film_1",)),
    Target("stage_1.yaml", "yaml", (STAGE_1_CONFIG,), 12),
    Target("clusters.json", "json", (STAGE_1_CLUSTERS,), 8),
    Target(f"{STOPPED}/last.pt", "torch", (STAGE_2,), 24, ("vjepa2-tiny-interrupted",)),
    Target(f"{STOPPED}/best_lora/metrics.json", "json", (STAGE_2,), 12, ("best_lora",)),
    Target("classes.yaml", "yaml", (STAGE_2,), 22),
    Target("data/annotated/manifest.json", "json", (STAGE_2,), 22),
    Target("releases/101/annotations.csv", "csv", (IMPORT_101,), 22),
    Target("releases/101/phases.csv", "csv", (IMPORT_101,), 14),
    Target("releases/1k/case_1/case_1_annotations_phases.csv", "csv", (IMPORT_1K,), 22),
    Target("data/mini/groundTruth_val/BL_8.txt", "text", (EVALUATE_VAL, AUDIT), 18, ("BL_8",)),
    Target("data/mini/splits/theirs/train.split1.bundle", "text", (LISTED, OFFICIAL), 18, ("theirs",)),
    Target("data/mini/splits/theirs/test.split2.bundle", "text", (LISTED,), 14, ("theirs",)),
    Target("data/mini/splits/lists.yaml", "yaml", (OFFICIAL, LISTED), 30),
    Target("gru.yaml", "yaml", (GRU,), 34),
    Target("map.yaml", "yaml", (TRANSFER,), 30),
    Target("data/other/mapping.txt", "text", (TRANSFER,), 12, ("other", "map.yaml", "unknown phase")),
    Target("table.zip", "zip", (VERIFY,), 50, ("mini",)),
    Target("predictions/BL_1.txt", "text", (FOREIGN,), 12, ("BL_1",)),
    Target("predictions/BL_1.npy", "npy", (FOREIGN,), 12, ("BL_1",)),
    Target("releases/table.yaml", "yaml", (IMPORT_TABLE,), 34),
    Target("releases/table/labels.csv", "csv", (IMPORT_TABLE,), 24),
    Target("releases/table/sample.json", "json", (IMPORT_TABLE,), 6),
    Target("data/Table/manifest.json", "json", (IMPORT_TABLE,), 16),
    Target("releases/cholect50/labels/VID01.json", "json", (IMPORT_CHOLECT50,), 18, ("VID01",)),
    Target("releases/grasp/GraSP_1fps/annotations/grasp_long-term_train.json", "json", (IMPORT_GRASP,), 20, ("grasp",)),
    Target("releases/multibypass/labels/bern/labels_by70/BBP01.mp4.json", "json", (IMPORT_MULTIBYPASS,), 20, ("BBP01",)),
    Target("releases/sics/SICS_155_train/train/train_annotations.csv", "csv", (PREPARE,), 20),
    *map(clip_target, CONTAINERS),
)  # fmt: skip


def make_world(root: Path) -> None:
    """Fill `root` with the files of `TARGETS` and what their commands need besides."""
    from common.base.files import write_json, write_text
    from pretrain.video_data.video_index import probe_videos

    shutil.copytree(ARTEFACTS, root, ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    shutil.copytree(ARTEFACTS / "pretrain", root / "pretrain", dirs_exist_ok=True)
    for model in MODELS:
        (root / "models" / model).mkdir(parents=True, exist_ok=True)
        config = (CHECKOUT / "models" / model / "config.yaml").read_text(encoding="utf-8")
        # the artefacts' colour histograms are from before they were scaled
        kept = [line for line in config.splitlines() if not line.startswith("  feature_scale:")]
        write_text(root / "models" / model / "config.yaml", "\n".join([*kept, ""]))
    videos = sorted(path.stem for path in (root / "data" / "mini" / "videos").iterdir())
    rows = "".join(f"{video},patient_{number}\n" for number, video in enumerate(videos))
    write_text(root / "data" / "mini" / "patients.csv", f"video,patient\n{rows}")
    write_text(root / "data" / "mini" / "dataset.yaml", "source: drawn\nlicence: free\nbackground: background\n")
    write_text(root / "class_weights.txt", "background 1\nincision 2\nwash 1.5\nsuture 1\n")
    write_text(root / "head.yaml", "num_epochs: 1\nnum_layers_PG: 3\nnum_layers_R: 2\nnum_R: 1\nlr: 0.01\nrun: new\n")
    write_text(
        root / "stage_1.yaml", "init: start\nvideos: [unlabelled]\nmax_steps: 1\nbatch_size: 2\nmonitor_every: 0\n"
    )
    segments = {f"unlabelled/film_{number}": [[0.0, 2.0, 0], [2.0, 4.0, 1]] for number in (1, 2)}
    write_json(root / "clusters.json", {"format": 1, "made_by": {}, "videos": segments})
    stopped, stage_1 = root / "pretrain" / "stopped", root / "pretrain" / "checkpoints" / "ssl" / "vjepa2-tiny"
    stopped.mkdir()
    for name in ("step_000004.pt", "metrics.jsonl"):
        shutil.copy(stage_1 / name, stopped)
    probe_videos(
        [*(root / "data" / "unlabelled" / "videos").iterdir()],
        root / "pretrain" / "checkpoints" / "video_index.json",
        0,
    )
    _write_weights(root / "weights", stage_1 / "export", root / ADAPTER)
    write_releases(root / "releases")
    _write_other(root)
    _write_lists(root / "data" / "mini" / "splits")
    with _commands_work_in(root):
        _write_exchange(root)
        packed = [str(root / word) if word == "packed" else word for word in PACKED_SET]
        importlib.import_module(CHECK_PACKED.module).main(packed)
        importlib.import_module(IMPORT_TABLE.module).main(
            [str(root / word) if "/" in word else word for word in IMPORT_TABLE.words]
        )
    for suffix, codec in CONTAINERS.items():
        clips = root / "data" / f"clips_{suffix}" / "videos"
        _write_clip(clips / f"middle.{suffix}", codec, 0)
        for seed, name in enumerate(("a.mp4", "z.mp4"), 1):
            _write_clip(clips / name, "libx264", seed)
    _write_clip(root / "data" / "short" / "videos" / "one.mp4", "libx264", 0)


def _write_weights(folder: Path, export: Path, adapter: Path) -> None:
    """A network as a file of torch and as safetensors, that of an export in two parts with their index, and as `.bin`.

    The adapter is as older releases of peft wrote it, and without a record of its base.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from common.base.files import write_json
    from common.encoders.base import build_encoder
    from common.encoders.config import read_encoder_config

    whole = build_encoder(read_encoder_config(CHECKOUT / "models" / MODELS[1] / "config.yaml"), "random")
    tensors = {name: value.detach().contiguous() for name, value in whole.network.state_dict().items()}
    state = load_file(export / "model.safetensors")
    names = sorted(state)
    halves = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    (folder / "parts").mkdir(parents=True)
    save_file(tensors, folder / "tiny.safetensors")
    torch.save(tensors, folder / "tiny.pth")
    shutil.copy(export / "config.json", folder / "parts")
    for file, keys in halves.items():
        save_file({key: state[key] for key in keys}, folder / "parts" / file)
    factors = load_file(adapter / "adapter_model.safetensors")
    for name, content in (("bin/pytorch_model.bin", state), ("adapter/adapter_model.bin", factors)):
        (folder / name).parent.mkdir()
        torch.save(content, folder / name)
    shutil.copy(export / "config.json", folder / "bin")
    shutil.copy(adapter / "adapter_config.json", folder / "adapter")
    weight_map = {key: file for file, keys in halves.items() for key in keys}
    write_json(folder / "parts" / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_other(root: Path) -> None:
    """Another data set with features of the same encoder, the phases that both share, and a head with settings of its own."""
    from common.base.files import write_text

    for name in ("groundTruth", "features/ColorHistogram", "mapping.txt"):
        source, target = root / "data" / "mini" / name, root / "data" / "other" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    names = [line.partition(" ")[2] for line in (root / "data" / "mini" / "mapping.txt").read_text().splitlines()]
    write_text(root / "map.yaml", "".join(f"{name}: {name}\n" for name in names[:3]))
    write_text(root / "gru.yaml", "head: gru\nhead_options:\n  hidden: 8\n  layers: 1\nsample_rate: 1\n")


def _write_lists(splits: Path) -> None:
    """A named list of the same splits as the folds."""
    from common.base.files import write_text

    (splits / "theirs").mkdir()
    for path in splits.glob("*.bundle"):
        shutil.copy(path, splits / "theirs")
    write_text(
        splits / "lists.yaml", "official: theirs\nlists:\n  theirs:\n    standing: official\n    source: drawn\n"
    )


def _write_exchange(root: Path) -> None:
    """Predictions as others hand them over, and a bundle of a table with these."""
    from common.base import paths
    from common.reports.comparison import make_report
    from common.reports.exchange.bundle import write_bundle
    from common.reports.exchange.foreign import read_foreign
    from common.reports.results import collect_all
    from common.scoring.protocols import CHALLENGE

    for split in ("split_1", "split_2"):
        for path in (root / RUN).with_name(split).glob("[!r]*"):
            (root / "predictions").mkdir(exist_ok=True)
            shutil.copy(path, root / "predictions")
    dataset = paths.dataset("mini")
    shutil.copytree(root / "data" / "mini" / "groundTruth_val", root / "predictions_val")
    rows = [*collect_all(dataset, 2).results, read_foreign("Theirs", root / "predictions", dataset, ["1", "2"])]
    write_bundle(root / "table.zip", [make_report(dataset, rows, [CHALLENGE])], benchmark=None, segments=None)


@contextlib.contextmanager
def _commands_work_in(root: Path) -> Iterator[None]:
    """What is called meanwhile takes `root` for the project's."""
    before = os.environ.get("SICS155_ROOT")
    os.environ["SICS155_ROOT"] = str(root)
    try:
        yield
    finally:
        del os.environ["SICS155_ROOT"]
        if before is not None:
            os.environ["SICS155_ROOT"] = before


def _write_clip(path: Path, codec: str, seed: int) -> None:
    """A clip of 12 frames with moving content."""
    import av
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 255, (48, 76, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, width=64, height=48, pix_fmt="yuv420p")
        stream.codec_context.thread_count = 1
        for shift in range(12):
            frame = np.ascontiguousarray(picture[:, shift : shift + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
