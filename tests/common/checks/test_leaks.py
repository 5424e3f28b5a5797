"""Scored videos that pretraining has seen, found in manifests by content."""

import json

import pytest

from common.base import files, paths
from common.base.files import video_fingerprint
from common.checks.leaks import leaked_videos, leaks_of_dataset, leaks_of_record
from common.dataset.manifest import read_manifest
from tests.common.cohort import make_and_write_folds
from tests.common.cohort import write_manifest as cohort_manifest

LONG_NAME = "vjepa2-vitl-fpc64-256"


@pytest.fixture
def dataset(workspace) -> paths.Dataset:
    """Four labelled videos, one for validation and one without labels; to a fingerprint any bytes are a video."""
    dataset = paths.Dataset(workspace / "data" / "SICS155")
    for folder in (dataset.videos, dataset.ground_truth, dataset.ground_truth_val):
        folder.mkdir(parents=True)
    for number, name in enumerate(["BL_1", "BL_2", "BN_1", "SD_1", "BL_8", "XX_1"]):
        (dataset.videos / f"{name}.mp4").write_bytes(f"the content of {number}".encode())
    for name in ("BL_1", "BL_2", "BN_1", "SD_1"):
        (dataset.ground_truth / f"{name}.txt").write_text("background\n")
    (dataset.ground_truth_val / "BL_8.txt").write_text("background\n")
    return dataset


def seen(dataset, *names, corpus="corpus"):
    """Entries of a manifest for videos of the data set, under names of their own."""
    files = {name: dataset.videos / f"{name}.mp4" for name in names}
    return [
        {
            "corpus": corpus,
            "name": f"case_{n}",
            "size_bytes": path.stat().st_size,
            "fingerprint": video_fingerprint(path),
        }
        for n, path in enumerate(files.values())
    ]


def write(folder, videos=(), *, stage="ssl", based_on=(), **changes):
    """A manifest in `folder`; returns its path."""
    record = {"format": 1, "stage": stage, "model": LONG_NAME, "videos": videos, "based_on": based_on}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    path.write_text(json.dumps(record | changes))
    return path


def run_record(weights, *, split=2, videos=("BL_1", "BN_1")):
    return {"split": split, "videos": list(videos), "features": {"identity": {"encoder": "X", "weights": weights}}}


def test_videos_are_known_by_content_under_any_name(dataset):
    manifest = read_manifest(write(paths.pretrained_backbone("m"), seen(dataset, "SD_1", "BL_1", "BL_8", "XX_1")))
    assert leaked_videos(dataset, manifest) == ["BL_1", "BL_8", "SD_1"]  # XX_1 has no labels: it is never scored


def test_another_video_of_the_same_name_or_size_is_no_leak(dataset):
    entry = seen(dataset, "BL_1")[0] | {"name": "BL_2", "corpus": "SICS155", "fingerprint": "0" * 64}
    manifest = read_manifest(write(paths.pretrained_backbone("m"), [entry]))
    assert leaked_videos(dataset, manifest) == []


@pytest.mark.parametrize(("corpus", "expected"), [("SICS155", ["BL_2"]), ("sics155", ["BL_2"]), ("cataract1k", [])])
def test_a_video_that_is_not_on_this_machine_is_known_by_corpus_and_name(dataset, corpus, expected):
    entry = seen(dataset, "BL_2", corpus=corpus)[0] | {"name": "BL_2"}
    (dataset.videos / "BL_2.mp4").unlink()
    manifest = read_manifest(write(paths.pretrained_backbone("m"), [entry]))
    assert leaked_videos(dataset, manifest) == expected


def test_of_two_files_of_one_name_both_are_looked_for(dataset):
    entries = seen(dataset, "XX_1")
    (dataset.videos / "XX_1.mp4").rename(dataset.videos / "BL_1.mkv")
    manifest = read_manifest(write(paths.pretrained_backbone("m"), entries))
    assert leaked_videos(dataset, manifest) == ["BL_1"]


def test_a_video_is_read_once_in_a_run_and_again_when_it_changes(dataset, monkeypatch):
    manifest = read_manifest(write(paths.pretrained_backbone("m"), seen(dataset, "BL_1", "BN_1")))
    read = []
    monkeypatch.setattr(files, "video_fingerprint", lambda path: read.append(path.stem) or video_fingerprint(path))
    assert leaked_videos(dataset, manifest) == leaked_videos(dataset, manifest) == ["BL_1", "BN_1"]
    assert len(read) == len(set(read))
    (dataset.videos / "BL_1.mp4").write_bytes(b"THE CONTENT OF 0")
    assert leaked_videos(dataset, manifest) == ["BN_1"]


def test_only_videos_of_a_size_in_the_manifest_are_read(dataset, monkeypatch):
    manifest = read_manifest(write(paths.pretrained_backbone("m"), seen(dataset, "BL_1")))
    (dataset.videos / "BN_1.mp4").write_bytes(b"a video of another size")
    read = []
    monkeypatch.setattr(files, "video_fingerprint", lambda path: read.append(path.stem) or video_fingerprint(path))
    leaked_videos(dataset, manifest)
    assert "BN_1" not in read


def test_a_record_names_the_scored_videos_that_each_stage_saw(dataset):
    base = write(paths.pretrained_backbone(LONG_NAME), seen(dataset, "BL_1", "BL_2", "BN_1"))
    write(paths.pretrained_adapter("vjepa2-l"), seen(dataset, "BN_1", "SD_1"), stage="lora", based_on=[str(base)])
    found = leaks_of_record(dataset, run_record({"source": "pretrain:vjepa2-l", "sha256": "0"}))
    assert [str(leak) for leak in found] == [
        "LoRA fine-tuning (vjepa2-l/best_lora) saw 1 video of test fold 2: BN_1",
        f"self-supervised pretraining (ssl/{LONG_NAME}) saw 2 videos of test fold 2: BL_1, BN_1",
    ]
    assert [leak.videos for leak in found] == [("BN_1",), ("BL_1", "BN_1")]


def test_a_run_on_other_videos_has_no_leak(dataset):
    folder = write(paths.pretrained_backbone(LONG_NAME), seen(dataset, "BL_2", "SD_1")).parent
    assert leaks_of_record(dataset, run_record({"source": str(folder)})) == []


def test_a_run_on_the_validation_part_says_so(dataset):
    folder = write(paths.pretrained_backbone(LONG_NAME), seen(dataset, "BL_8")).parent
    (leak,) = leaks_of_record(dataset, run_record({"source": str(folder)}, split="val", videos=["BL_8"]))
    assert str(leak).endswith("saw 1 video of the validation part: BL_8")


def test_features_without_a_sidecar_have_no_known_leak(dataset):
    record = run_record(None) | {"features": {"identity": None}}
    assert leaks_of_record(dataset, record) == []


def test_leaks_of_a_data_set_go_by_fold(dataset):
    manifest = read_manifest(write(paths.pretrained_backbone("m"), seen(dataset, "BL_1", "BL_2", "SD_1", "BL_8")))
    found = leaks_of_dataset(dataset, manifest, [["BL_1", "BL_2"], ["BN_1"]])
    assert [(leak.where, leak.videos) for leak in found] == [
        ("test fold 1", ("BL_1", "BL_2")),
        ("the validation part", ("BL_8",)),
        ("the labelled videos", ("SD_1",)),  # in no fold yet
    ]


# --- findings of an audit ------------------------------------------------------------------------------------------


def test_pretraining_on_test_videos_is_an_error_with_the_fold(cohort):
    folds = make_and_write_folds(cohort)
    paths_seen = [cohort.video(name) for name in (folds[1][0], folds[1][3], "BL_90")]
    videos = [
        {"corpus": "c", "name": str(n), "size_bytes": path.stat().st_size, "fingerprint": video_fingerprint(path)}
        for n, path in enumerate(paths_seen)
    ]
    cohort_manifest(paths.pretrained_backbone("vjepa2-vitl"), videos)
    first, second = cohort.findings()
    assert (first.severity, first.kind, first.video) == ("error", "leaks", folds[1][0])
    title = "self-supervised pretraining (ssl/vjepa2-vitl) saw"
    assert first.message == f"{title} 2 videos of test fold 2: {folds[1][0]}, {folds[1][3]}"
    assert second.message == f"{title} 1 video of the validation part: BL_90"


def test_a_damaged_manifest_does_not_stop_the_others(cohort):
    cohort_manifest(paths.pretrained_backbone("a"), []).write_text("{")
    path = cohort.video("BL_01")
    entry = {"corpus": "c", "name": "n", "size_bytes": path.stat().st_size, "fingerprint": video_fingerprint(path)}
    cohort_manifest(paths.pretrained_backbone("b"), [entry])
    damaged, leak = cohort.findings()
    assert damaged.severity == "error"
    assert "ssl/a/manifest.json: not a readable JSON file" in damaged.message
    assert "of the labelled videos: BL_01" in leak.message


def test_weights_without_a_manifest_are_a_warning(cohort):
    paths.pretrained_adapter("vjepa2-l").mkdir(parents=True)
    finding = cohort.only()
    assert (finding.severity, finding.kind) == ("warning", "leaks")
    assert "best_lora" in finding.message
