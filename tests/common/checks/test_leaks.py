"""What pretraining has seen: manifests read and followed, and scored videos found in them by content."""

import json

import pytest

from common.base import paths
from common.base.runtime import UserError
from common.checks import leaks
from common.checks.leaks import leaked_videos, leaks_of_dataset, leaks_of_record
from common.dataset import manifest as manifests
from common.dataset.manifest import manifests_of_weights, read_manifest, video_fingerprint

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


def paths_of(manifests):
    return [manifest.path for manifest in manifests]


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_manifest_is_read_with_its_videos(dataset):
    path = write(paths.pretrained_backbone(LONG_NAME), seen(dataset, "BL_1", "BN_1"))
    manifest = read_manifest(path)
    assert (manifest.stage, manifest.model, manifest.based_on) == ("ssl", LONG_NAME, ())
    assert [video.name for video in manifest.videos] == ["case_0", "case_1"]
    assert manifest.videos[0].fingerprint == video_fingerprint(dataset.videos / "BL_1.mp4")
    assert manifest.title == f"self-supervised pretraining (ssl/{LONG_NAME})"


def test_a_manifest_elsewhere_is_called_by_its_whole_folder(workspace, tmp_path):
    assert read_manifest(write(tmp_path / "mine", stage="lora")).title == f"LoRA fine-tuning ({tmp_path / 'mine'})"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format": 2}, "format 2, expected 1"),
        ({"stage": "mae"}, "stage 'mae', expected one of ssl, lora"),
        ({"videos": {}}, "without a proper videos"),
        ({"model": None, "based_on": "x"}, "without a proper model, based_on"),
        (
            {"videos": [{"corpus": "c", "name": "n", "size_bytes": "9"}]},
            r"videos\[0\]: without a proper size_bytes, fing",
        ),
        ({"videos": ["BL_1"]}, r"videos\[0\]: not an object"),
    ],
)
def test_an_unsuitable_manifest_is_an_error_that_names_it(tmp_path, changes, what):
    path = write(tmp_path, **changes)
    with pytest.raises(UserError, match=f"{path}: not a manifest of pretraining .*{what}"):
        read_manifest(path)


@pytest.mark.parametrize(("content", "what"), [("{", "not a readable JSON"), ("[]", "not an object")])
def test_a_damaged_manifest_is_an_error_that_names_it(tmp_path, content, what):
    path = tmp_path / "manifest.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{path}: .*{what}"):
        read_manifest(path)


def test_an_absent_manifest_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such manifest"):
        read_manifest(tmp_path / "manifest.json")


# --- from weights to manifests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "export", "final.pt", "export/model.safetensors"])
def test_weights_lead_to_the_manifest_in_beside_or_above_them(workspace, inside):
    folder = paths.pretrained_backbone(LONG_NAME)
    (folder / "export").mkdir(parents=True)
    (folder / "final.pt").touch()
    (folder / "export" / "model.safetensors").touch()
    path = write(folder)
    assert paths_of(manifests_of_weights({"source": str(folder / inside)})) == [path]


def test_a_short_name_leads_to_the_adapter_and_on_to_its_base(workspace):
    base = write(paths.pretrained_backbone(LONG_NAME))
    adapter = write(
        paths.pretrained_adapter("vjepa2-l"), stage="lora", based_on=[f"../../ssl/{LONG_NAME}/manifest.json"]
    )
    assert paths_of(manifests_of_weights({"source": "pretrain:vjepa2-l"})) == [adapter, base]


def test_an_adapter_and_its_base_are_each_named_once(workspace):
    base = write(paths.pretrained_backbone(LONG_NAME))
    adapter = write(paths.pretrained_adapter("vjepa2-l"), stage="lora", based_on=[str(base)])
    identity = {"source": str(base.parent / "export"), "sha256": "0", "adapter": {"source": str(adapter.parent)}}
    assert paths_of(manifests_of_weights(identity)) == [adapter, base]


def test_a_base_may_be_named_from_the_repository(workspace, tmp_path):
    base = write(paths.pretrained_backbone(LONG_NAME))
    adapter = write(tmp_path / "elsewhere", stage="lora", based_on=[str(base.relative_to(workspace))])
    assert paths_of(manifests_of_weights({"source": str(adapter.parent)})) == [adapter, base]


def test_weights_of_another_checkout_are_looked_for_in_this_one(workspace):
    path = write(paths.pretrained_backbone(LONG_NAME))
    source = f"/cluster/project/pretrain/checkpoints/ssl/{LONG_NAME}/export"
    assert paths_of(manifests_of_weights({"source": source})) == [path]


def test_manifests_in_a_circle_are_each_read_once(workspace):
    folder = paths.pretrained_backbone(LONG_NAME)
    path = write(folder, based_on=["manifest.json"])
    assert paths_of(manifests_of_weights({"source": str(folder)})) == [path]


@pytest.mark.parametrize(
    "source",
    ["random", "none", "hub:facebook/dinov3", "package:p/w.pth", "torchvision:A.B", "https://x.org/w.pt", "/no/w.pt"],
)
def test_weights_without_a_manifest_say_nothing(workspace, source):
    assert manifests_of_weights({"source": source}) == []
    assert manifests_of_weights(None) == []


def test_a_missing_earlier_stage_is_an_error(workspace):
    adapter = write(paths.pretrained_adapter("vjepa2-l"), stage="lora", based_on=["../gone/manifest.json"])
    with pytest.raises(UserError, match=r"gone/manifest.json: no such manifest"):
        manifests_of_weights({"source": str(adapter.parent)})


def test_finished_weights_without_a_manifest_are_found(workspace):
    for folder in (paths.pretrained_backbone("a"), paths.pretrained_backbone("b"), paths.pretrained_backbone("c")):
        folder.mkdir(parents=True)
    for name in "ab":
        (paths.pretrained_backbone(name) / "final.pt").touch()  # c is still under way
    paths.pretrained_adapter("short").mkdir(parents=True)
    write(paths.pretrained_backbone("a"))
    assert manifests.without_manifest() == [paths.pretrained_backbone("b"), paths.pretrained_adapter("short")]


# --- from manifests to videos --------------------------------------------------------------------------------------


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
    monkeypatch.setattr(leaks, "video_fingerprint", lambda path: read.append(path.stem) or video_fingerprint(path))
    assert leaked_videos(dataset, manifest) == leaked_videos(dataset, manifest) == ["BL_1", "BN_1"]
    assert len(read) == len(set(read))
    (dataset.videos / "BL_1.mp4").write_bytes(b"THE CONTENT OF 0")
    assert leaked_videos(dataset, manifest) == ["BN_1"]


def test_only_videos_of_a_size_in_the_manifest_are_read(dataset, monkeypatch):
    manifest = read_manifest(write(paths.pretrained_backbone("m"), seen(dataset, "BL_1")))
    (dataset.videos / "BN_1.mp4").write_bytes(b"a video of another size")
    read = []
    monkeypatch.setattr(leaks, "video_fingerprint", lambda path: read.append(path.stem) or video_fingerprint(path))
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
