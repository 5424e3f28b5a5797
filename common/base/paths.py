"""The only place that spells a file location.

Everything hangs below one root: `data/`, `models/`, `comparison_results/`. It is the checkout, or the folder that the
environment variable `SICS155_ROOT` names (a scratch disk, a test's folder). No command depends on where it is started.
"""

import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from common.base.entries import VIDEOS_IN_WORDS, list_labels, list_videos, reason_against_folder, visible, warn_once
from common.base.runtime import UserError, nearest_name, shortened_path, shown

DEFAULT_DATASET = "SICS155"
USUAL_DATASET = (
    f"{DEFAULT_DATASET} if it is in data/, else the only one there, drawn ones aside"  # for the words of --help
)
RUN_RECORD = "run.json"  # completes the folder of a finished prediction
SEGMENTATION_RECORD = "segmentation.json"  # the same of predicted masks
TRANSFER_RECORD = "transfer.json"  # the same of a prediction on another data set than the head's own
TASK_RECORD = "task.json"  # the same of a task other than phases (`common.tasks`)
TASK_PREDICTIONS = "predictions.csv"  # beside it: what was answered for every frame or clip
# beside weights of `pretrain/`: the videos that they have seen; in a data set: see `import_record`
MANIFEST = "manifest.json"
FINAL_STATE = "final.pt"  # of Stage 1 of pretraining, beside its export; of a sharded one the folder `final`
FINAL_FOLDER = "final"
# what else trainings of pretrain/ keep: states, numbers, the trained network and where it is from
BEST_STATE, LAST_STATE = "best.pt", "last.pt"
METRICS, METRICS_TABLE, ADAPTER_METRICS = "metrics.jsonl", "metrics.csv", "metrics.json"
EXPORT, PROVENANCE = "export", "provenance.json"
LINEAR_PROBE = "linear_probe.pt"  # the classifier of Stage 2 as a head for `common.predict_video`
PACKED = "packed.json"  # of a folder of packed videos (`pretrain/pack_videos.py`)
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*")
CHECKOUT = Path(__file__).resolve().parents[2]


def repository_root() -> Path:
    """The folder that holds `data/`, `models/` and `comparison_results/`."""
    return Path(os.environ["SICS155_ROOT"]).resolve() if os.environ.get("SICS155_ROOT") else CHECKOUT


def require_name(noun: str, name: str) -> str:
    """`name`, which a folder of this project takes: of a run, a variant, a model or a data set.

    Raises `UserError` for one that leads elsewhere, or that some system cannot store.
    """
    if reason := reason_against_folder(name):
        raise UserError(f"{noun}: {shown(name)} cannot be the name of a folder ({reason})")
    return name


@dataclass(frozen=True)
class Dataset:
    """File locations of one data set, laid out as in MS-TCN: videos, groundTruth, splits, mapping.txt, features."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def videos(self) -> Path:
        return self.root / "videos"

    @property
    def ground_truth(self) -> Path:
        return self.root / "groundTruth"

    @property
    def ground_truth_val(self) -> Path:
        return self.root / "groundTruth_val"

    @property
    def mapping(self) -> Path:
        return self.root / "mapping.txt"

    @property
    def description(self) -> Path:
        """What the data set says of itself (`common.dataset.description`), where anything differs from the usual."""
        return self.root / "dataset.yaml"

    @property
    def presence(self) -> Path:
        """CSV `video,frame,<class>...` of a data set whose task is multilabel (`common.dataset.task_labels`)."""
        return self.root / "labels.csv"

    @property
    def clips(self) -> Path:
        """CSV `clip,label,group,split,...` of a data set whose task is clips (`common.dataset.task_labels`)."""
        return self.root / "clips.csv"

    @property
    def images(self) -> Path:
        """`images/<group>/` of a data set whose task is segmentation."""
        return self.root / "images"

    @property
    def masks(self) -> Path:
        """`masks/<group>/` of a data set whose task is segmentation: an index PNG for each image."""
        return self.root / "masks"

    @property
    def sample_record(self) -> Path:
        """The record that `data/make_sample.py` leaves in the set that it has drawn."""
        return self.root / "sample.json"

    @property
    def is_synthetic(self) -> bool:
        """Whether the data set is drawn by `data/make_sample.py`."""
        return self.sample_record.is_file()

    @property
    def import_record(self) -> Path:
        """The record that an importer of annotations writes last: the release, and each video's rate and stratum."""
        return self.root / MANIFEST

    @property
    def patients(self) -> Path:
        """CSV `video,patient`, present where the release names patients."""
        return self.root / "patients.csv"

    @property
    def groups(self) -> Path:
        """CSV `video,group`, present where the release has several centres."""
        return self.root / "groups.csv"

    @property
    def splits(self) -> Path:
        return self.root / "splits"

    @property
    def folds_record(self) -> Path:
        return self.splits / "folds.json"

    def split_list(self, name: str | None) -> Path:
        """`splits/<NAME>/`, the folder of a named list of splits; without a name that of the generated folds."""
        return self.splits / require_name("list of splits", name) if name else self.splits

    @property
    def split_lists(self) -> Path:
        """Where the named lists are from, and which of them is the official one."""
        return self.splits / "lists.yaml"

    def bundle(self, part: str, split: int, splits: str | None = None) -> Path:
        """`splits/[<NAME>/]{train,val,test}.split<k>.bundle`, k from 1."""
        return self.split_list(splits) / f"{part}.split{split}.bundle"

    def ground_truth_split(self, split: int) -> Path:
        """The folder with the label files of the test fold `split`."""
        return self.root / f"groundTruth_split_{split}"

    def features(self, encoder: str, variant: str | None = None) -> Path:
        """`features/<Encoder>` or `features/<Encoder>@<variant>`."""
        name = f"{encoder}@{variant}" if variant else encoder
        return self.root / "features" / require_name("variant" if variant else "model", name)


@dataclass(frozen=True)
class Model:
    """File locations of one model folder: its configuration and everything its runs write."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def workbook(self) -> Path:
        return self.root / "results.xlsx"

    @property
    def visualizations(self) -> Path:
        return self.root / "visualizations"

    @property
    def visualizations_kfold(self) -> Path:
        return self.root / "visualizations_kfold"

    def confusion(self, dataset: str, run: str | None = None) -> Path:
        """The picture of a run's confusions, which a comparison over folds writes."""
        return self.visualizations_kfold / "_".join(filter(None, [dataset, run, "confusion.png"]))

    def results(self, dataset: str, run: str | None = None) -> Path:
        """`results/<dataset>[/<run>]`: one folder a split below it."""
        return _below(self.root / "results", dataset, run)

    def split_results(self, dataset: str, split: int | str, run: str | None = None) -> Path:
        """`results/<dataset>[/<run>]/split_<k>`: predictions, probabilities and `run.json`."""
        return self.results(dataset, run) / require_name("split", f"split_{split}")

    def unlabelled_results(self, dataset: str, folder: str, split: int | str, run: str | None = None) -> Path:
        """Predictions for a folder of videos without labels, which may have any name, by the head trained on `split`."""
        name = f"videos_{folder}"
        if reason_against_folder(name):  # features are made there as in a data set
            name = f"{re.sub('[^A-Za-z0-9_-]', '_', name)[:40]}-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"
        return self.split_results(dataset, split, run).parent / name / f"split_{split}"

    def unlabelled_features(self, dataset: str) -> list[Path]:
        """Folders of features made for videos without labels, for heads of a data set: each is called as its encoder and variant."""
        return [folder for run in ("", "*/") for folder in visible(self.results(dataset), f"{run}videos_*/features/*")]

    def transfer_results(self, dataset: str, trained_on: str, split: int | str, run: str | None = None) -> Path:
        """Predictions for `dataset` by the head that was trained on a split of another."""
        name = f"from={trained_on}" + (f"-{run}" if run else "")
        return self.split_results(dataset, split, name)

    def checkpoint(self, dataset: str, split: int | str, run: str | None = None) -> Path:
        """`checkpoints/<dataset>[/<run>]/split_<k>/last.pt`."""
        return _below(self.root / "checkpoints", dataset, run) / require_name("split", f"split_{split}") / LAST_STATE

    def segmentation_checkpoint(self, dataset: str, split: int | str, run: str | None = None) -> Path:
        """`checkpoints/<dataset>[/<run>]/split_<k>/segmentation.pt`."""
        return self.checkpoint(dataset, split, run).with_name("segmentation.pt")

    def trained_heads(self) -> list[Path]:
        """The checkpoints of all data sets, runs and splits."""
        return visible(self.root, f"checkpoints/**/split_*/{LAST_STATE}")


def _below(folder: Path, dataset: str, run: str | None) -> Path:
    """`<dataset>[/<run>]` in a folder of a model."""
    inner = folder / require_name("data set", dataset)
    return inner / require_name("run", run) if run else inner


def present_datasets() -> list[str]:
    """The data sets of `data/`, by name: folders with phases, videos or a description of themselves."""
    folders = map(Dataset, visible(repository_root() / "data"))
    return [each.name for each in folders if any(map(os.path.exists, (each.mapping, each.videos, each.description)))]


def meant_datasets() -> list[str]:
    """The data sets of which one is meant where none is named: the study's, else those that are there, but drawn ones beside others."""
    present = present_datasets()
    if not present or DEFAULT_DATASET in present:
        return [DEFAULT_DATASET]
    return [name for name in present if not Dataset(repository_root() / "data" / name).is_synthetic] or present


def default_dataset() -> str:
    """The data set that is meant where none is named, which is said. Raises `UserError` where it may be one of several."""
    meant = meant_datasets()
    if len(meant) > 1:
        raise UserError(
            f"data/ has several data sets: {', '.join(meant)}; name one, such as --dataset {meant[0]}, or that which the head was trained on"
        )
    if meant != [DEFAULT_DATASET]:
        others = " that is not drawn" if len(present_datasets()) > 1 else ""
        warn_once(f"data set {meant[0]}: the only one in data/{others}")
    return meant[0]


def dataset(name_or_path: str) -> Dataset:
    """A data set by name (`SICS155`), by path from the repository root (`./data/SICS155`) or by absolute path.

    Raises `UserError` when the folder does not exist, naming the data sets that do.
    """
    root = repository_root()
    if not name_or_path:
        raise UserError("data set '': expected a name of data/ or a folder, found none; name one")
    candidates = [root / name_or_path, root / "data" / name_or_path]
    bare_name = len(Path(name_or_path).parts) == 1
    for candidate in reversed(candidates) if bare_name else candidates:
        if os.path.isdir(candidate):  # a name too long for a file system is an error to Path
            root = candidate.resolve()
            around = Dataset(root.parent)
            parts = (around.videos, around.ground_truth, around.ground_truth_val, around.splits)
            if root in (*parts, around.root / "features") and around.mapping.is_file():
                raise UserError(f"{candidate}: a folder of the data set {around.name}; name that")
            require_name(f"data set {candidate}", root.name)  # its results are in folders called so
            return Dataset(root)
    present = present_datasets()
    near = nearest_name(name_or_path, present) if bare_name else None
    hint = f"did you mean {near!r}? " if near else ""
    raise UserError(
        f"no data set {shown(name_or_path)}: expected the folder "
        f"{shortened_path(candidates[-1] if bare_name else candidates[0])}; {hint}"
        f"present: {', '.join(present) or 'none'} (data/README.md says how to get one, "
        "`python data/make_sample.py` makes a small one)"
    )


def pretraining_checkpoints() -> Path:
    """Everything that `pretrain/` writes."""
    return repository_root() / "pretrain" / "checkpoints"


def video_index() -> Path:
    """The index of what Stage 1 has found in the videos that it learns from, kept from one training to the next."""
    return pretraining_checkpoints() / "video_index.json"


def packed_videos(corpus: str) -> Path:
    """Where `pretrain/pack_videos.py` packs a corpus unless it is told another folder."""
    return repository_root() / "data" / "packed" / corpus


def clusters() -> Path:
    """Where `pretrain/cluster_videos.py` writes unless it is told another file."""
    return pretraining_checkpoints() / "clusters.json"


def pretrained_backbone(name: str) -> Path:
    """The folder of Stage 1 under a model's long name (`vjepa2-vitl-fpc64-256`): final.pt, export/, manifest.json."""
    return pretraining_checkpoints() / "ssl" / name


def pretrained_adapter(name: str) -> Path:
    """The LoRA adapter that `pretrain/finetune_lora.py` keeps under a model's short name (`vjepa2-l`)."""
    return pretraining_checkpoints() / name / "best_lora"


def prelabel_record(folder: Path) -> Path:
    """What `common.prelabel` has handed out in a folder: each video's segments, times and fingerprint."""
    return folder / "prelabel.json"


def todo_list(folder: Path) -> Path:
    """The videos that wait in a folder of `common.prelabel`, those with the most doubtful segments first."""
    return folder / "todo.csv"


def user_cache() -> Path:
    """The folder in which this machine remembers things for its user; `SICS155_CACHE` names another.

    Raises `RuntimeError` for a user without a home.
    """
    if named := os.environ.get("SICS155_CACHE"):
        return Path(named)
    usual = {"win32": "AppData/Local", "darwin": "Library/Caches"}.get(sys.platform, ".cache")
    own = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(own) if own else Path.home() / usual) / "sics155-encoders"


def default_mapping() -> Path:
    """The repository's own `mapping.txt`: the 19 SICS-155 phases."""
    return CHECKOUT / "mapping.txt"


def comparison_results() -> Path:
    """The folder of the cross-model reports."""
    return repository_root() / "comparison_results"


def all_models() -> list[Model]:
    """Every folder under `models/` that has a `config.yaml`, by name."""
    found = [Model(path.parent) for path in visible(repository_root() / "models", "*/config.yaml")]
    for model in found:
        if reason := reason_against_folder(model.name):
            warn_once(f"{model.root}: left out: no name of a model ({reason})")
    return [model for model in found if not reason_against_folder(model.name)]


def model(name: str | None) -> Model:
    """The model folder called `name`; without a name, the one that the command was started in.

    Raises `UserError` when there is none, naming those that exist.
    """
    models = {entry.name: entry for entry in all_models()}
    if name is None:
        here = Path.cwd().resolve()
        for entry in models.values():
            if here.is_relative_to(entry.root.resolve()):
                return entry
        raise UserError(
            f"which encoder? Start this inside models/<Encoder>/, or add --model with one of: {', '.join(models)}"
        )
    if name not in models:
        near = nearest_name(name, models)
        hint = f"nearest: {near!r}; " if near else ""
        raise UserError(
            f"no model folder {shown(name)} with a config.yaml under models/; {hint}present: {', '.join(models)} "
            "(docs/encoders.md says which network each is)"
        )
    return models[name]


def new_model(name: str) -> Model:
    """The folder of an encoder that is to be made. Raises `UserError` for a name that cannot be, and one that is taken."""
    if not MODEL_NAME.fullmatch(name) or ".." in name:
        raise UserError(f"model {name!r}: a name holds letters, digits and . _ - + = only, without ..; give --name")
    folder = Model(repository_root() / "models" / name)
    if folder.root.exists():
        raise UserError(f"{folder.root} exists already; give --name another, or remove the folder")
    return folder


def find_videos(folder: Path) -> dict[str, Path]:
    """Videos directly in `folder` by name, sorted: files, and folders of numbered images.

    What is left out is named in a warning. Raises `UserError` for two videos of one name.
    """
    return list_videos(folder).one_each()


def videos_below(folder: Path) -> dict[str, Path]:
    """Videos in `folder` and in the folders below it by their path without suffix, sorted; else as `find_videos`."""
    return list_videos(folder, below=True).one_each()


def require_videos(folder: Path) -> dict[str, Path]:
    """As `find_videos`; none at all is a `UserError`."""
    videos = find_videos(folder)
    if not videos:
        raise UserError(f"{folder}: no video files here; expected {VIDEOS_IN_WORDS}")
    return videos


def label_paths(folder: Path) -> dict[str, Path]:
    """Label files of a folder by video, sorted; none where there is no such folder.

    What is left out is named in a warning. Raises `UserError` for two files of one video.
    """
    return list_labels(folder).one_each()


def quarantine_note(features: Path, video: str) -> Path:
    """`quarantine/<video>.json` beside features: why a video has none."""
    return features / "quarantine" / f"{video}.json"


def failure_note(folder: Path) -> Path:
    """What ended the last piece of work whose results go to `folder` (`common.base.failures`)."""
    return folder / "last_error.json"
