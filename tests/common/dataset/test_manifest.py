"""Manifests: read, followed from weights to the stages behind them; fingerprints of video files."""

import json

import pytest

from common.base import paths
from common.base.files import BLOCK_BYTES, NUM_BLOCKS, video_fingerprint
from common.base.runtime import UserError
from common.dataset import manifest as manifests
from common.dataset.manifest import manifests_of_weights, read_manifest

LONG_NAME = "vjepa2-vitl-fpc64-256"
LARGE = NUM_BLOCKS * BLOCK_BYTES + 12345


def write(folder, videos=(), *, stage="ssl", based_on=(), **changes):
    """A manifest in `folder`; returns its path."""
    record = {"format": 1, "stage": stage, "model": LONG_NAME, "videos": videos, "based_on": based_on}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    path.write_text(json.dumps(record | changes))
    return path


def paths_of(manifests):
    return [manifest.path for manifest in manifests]


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_manifest_is_read_with_its_videos(workspace):
    entries = [{"corpus": "c", "name": f"case_{n}", "size_bytes": 9, "fingerprint": f"{n}" * 64} for n in range(2)]
    manifest = read_manifest(write(paths.pretrained_backbone(LONG_NAME), entries))
    assert (manifest.stage, manifest.model, manifest.based_on) == ("ssl", LONG_NAME, ())
    assert [video.name for video in manifest.videos] == ["case_0", "case_1"]
    assert manifest.videos[0].fingerprint == "0" * 64
    assert manifest.title == f"self-supervised pretraining (ssl/{LONG_NAME})"


def test_a_manifest_elsewhere_is_called_by_its_whole_folder(workspace, tmp_path):
    assert read_manifest(write(tmp_path / "mine", stage="lora")).title == f"LoRA fine-tuning ({tmp_path / 'mine'})"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format": 2}, "format 2, expected 1"),
        ({"stage": "mae"}, "stage 'mae', expected one of ssl, lora"),
        ({"videos": {}}, "videos: expected a list, found {}"),
        ({"model": None, "based_on": "x"}, "model: expected text, found None"),
        ({"videos": [{"corpus": "c", "name": "n", "size_bytes": "9"}]}, r"videos\[0\]: fingerprint missing"),
        ({"videos": ["BL_1"]}, r"videos\[0\]: expected an object"),
    ],
)
def test_an_unsuitable_manifest_is_an_error_that_names_it(tmp_path, changes, what):
    path = write(tmp_path, **changes)
    with pytest.raises(UserError, match=f"{path}: not a manifest of pretraining .*{what}"):
        read_manifest(path)


@pytest.mark.parametrize(("content", "what"), [("{", "not a readable JSON"), ("[]", "expected an object")])
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
    (paths.pretrained_backbone("a") / "final.pt").touch()
    (paths.pretrained_backbone("b") / "final").mkdir()  # of a sharded training; c is still under way
    paths.pretrained_adapter("short").mkdir(parents=True)
    write(paths.pretrained_backbone("a"))
    assert manifests.without_manifest() == [paths.pretrained_backbone("b"), paths.pretrained_adapter("short")]


# --- fingerprints --------------------------------------------------------------------------------------------------


def written(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
def test_a_copy_under_another_name_has_the_same_fingerprint(tmp_path, size):
    content = bytes(index % 251 for index in range(size))
    first, second = written(tmp_path / "a.mp4", content), written(tmp_path / "b.avi", content)
    assert video_fingerprint(first) == video_fingerprint(second)


def test_a_small_file_is_read_whole(tmp_path):
    content = bytearray(1000)
    before = video_fingerprint(written(tmp_path / "a", content))
    for position in (0, 500, 999):
        changed = bytearray(content)
        changed[position] = 1
        assert video_fingerprint(written(tmp_path / "b", changed)) != before


def test_the_first_and_the_last_byte_and_the_size_of_a_large_file_count(tmp_path):
    content = bytearray(LARGE)
    seen = {video_fingerprint(written(tmp_path / "a", content))}
    for position in (0, LARGE - 1):
        changed = bytearray(content)
        changed[position] = 1
        seen.add(video_fingerprint(written(tmp_path / "b", changed)))
    seen.add(video_fingerprint(written(tmp_path / "c", content[:-1])))
    assert len(seen) == 4
