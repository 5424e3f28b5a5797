"""The command that packs videos: what it writes, how it goes on, and what it says of videos that it cannot pack."""

import sys
from pathlib import Path

import numpy as np
import pytest

from common.base import locks
from common.base.files import read_json, video_fingerprint
from common.base.runtime import UserError
from common.video.decode import require_decoder
from pretrain.pack_videos import main
from pretrain.video_data.clips import ClipReader
from pretrain.video_data.corpora import read_corpora
from pretrain.video_data.packed import OpenPacked


@pytest.fixture
def eyes(workspace, make_clip) -> Path:
    """Three videos of one grey each, two of ten frames a second and one of a folder of images, which has two a second."""
    dataset = workspace / "data" / "eyes"
    for number in range(2):
        frames = [np.full((48, 64, 3), 60 + 40 * number + index, np.uint8) for index in range(20)]
        make_clip(dataset / "videos" / f"case_{number}.mp4", frames, fps=10)
    from PIL import Image

    (dataset / "videos" / "images").mkdir()
    for number in range(6):
        Image.new("RGB", (64, 48), (30 * number,) * 3).save(dataset / "videos" / "images" / f"{number + 1:06d}.png")
    (dataset / "mapping.txt").write_text("0 wash\n")
    (dataset / "dataset.yaml").write_text("frames_fps: 2\n")
    return dataset


def pack(*more: str) -> int:
    return main(["--videos", "eyes", "--num_processes", "0", *more])


def packed(workspace: Path) -> Path:
    return workspace / "data" / "packed" / "eyes"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def changed(folder: Path, action) -> set[str]:
    """The files that `action` writes anew."""
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    action()
    return {path.name for path in folder.iterdir() if before.get(path.name) != path.stat().st_ino}


def test_a_data_set_is_packed_and_read_by_its_folder(workspace, eyes, capsys):
    assert pack() == 0
    names = {f"{video}.{suffix}" for video in ("case_0", "case_1", "images") for suffix in ("tar", "npy", "json")}
    assert files(packed(workspace)) == names | {"packed.json"}
    assert "eyes: 3 packed in " in capsys.readouterr().out
    corpora = read_corpora(["data/packed/eyes"], workspace / "index.json", num_processes=0)
    assert [(video.name, round(video.duration_seconds, 6)) for video in corpora[0].videos] == [
        ("case_0", 2.0), ("case_1", 2.0), ("images", 3.0)
    ]  # fmt: skip


def test_a_folder_of_images_is_packed_at_its_rate(workspace, eyes):
    assert pack() == 0
    shown = ClipReader().read(packed(workspace) / "images.tar", np.array([0.0, 0.5, 1.6, 9.0])).mean((1, 2, 3))
    assert np.abs(shown - [0, 30, 90, 150]).max() < 1


def test_another_rate_of_the_images_packs_them_again(workspace, eyes):
    pack()
    (eyes / "dataset.yaml").write_text("frames_fps: 1\n")
    assert changed(packed(workspace), pack) == {"images.tar", "images.npy", "images.json"}
    assert ClipReader().read(packed(workspace) / "images.tar", np.array([3.0])).mean() == pytest.approx(90, abs=1)


def test_a_second_run_packs_nothing(workspace, eyes, capsys):
    pack()
    assert changed(packed(workspace), pack) == set()
    assert "3 packed already" in capsys.readouterr().out


@pytest.mark.parametrize(
    "interrupt",
    [
        lambda folder: (folder / "case_0.json").unlink(),
        lambda folder: (folder / "case_0.tar").write_bytes(b"half"),
        lambda folder: (folder / "case_0.json").write_text('{"format": 1'),
    ],
    ids=["killed before the record", "shard cut off", "record cut off"],
)
def test_what_is_not_whole_is_packed_again(workspace, eyes, interrupt):
    pack()
    interrupt(packed(workspace))
    written = changed(packed(workspace), pack)
    assert written - {"case_0.tar"} == {"case_0.npy", "case_0.json"}
    assert ClipReader().read(packed(workspace) / "case_0.tar", np.zeros(1)).mean() == pytest.approx(60, abs=2)


def test_a_video_that_has_changed_is_packed_again_and_a_new_one_too(workspace, eyes, make_clip):
    pack()
    for name in ("case_1", "case_2"):
        make_clip(eyes / "videos" / f"{name}.mp4", [np.full((48, 64, 3), 200, np.uint8)] * 20, fps=10)
    written = changed(packed(workspace), pack)
    assert written == {
        "packed.json", "case_1.tar", "case_1.npy", "case_1.json", "case_2.tar", "case_2.npy", "case_2.json"
    }  # fmt: skip
    record = read_json(packed(workspace) / "case_1.json")
    assert record["source"]["fingerprint"] == video_fingerprint(eyes / "videos" / "case_1.mp4")


def test_force_packs_all_again(workspace, eyes):
    pack()
    assert len(changed(packed(workspace), lambda: pack("--force"))) == 9


def test_other_settings_need_another_folder(workspace, eyes):
    pack()
    with pytest.raises(
        UserError, match=r"packed\.json: expected 2 frames a second, .*, found 4 frames a second"
    ) as error:
        pack("--fps", "2")
    assert "--output" in str(error.value)
    assert pack("--fps", "2", "--output", str(workspace / "other")) == 0
    assert (workspace / "other" / "eyes" / "case_0.tar").is_file()


def test_another_corpus_of_the_same_folder_name_is_refused(workspace, eyes):
    pack()
    (packed(workspace) / "packed.json").write_text(
        (packed(workspace) / "packed.json").read_text().replace('"eyes"', '"knees"')
    )
    with pytest.raises(UserError, match="expected the corpus eyes, found knees"):
        pack()


def test_a_packed_folder_is_not_packed_again(workspace, eyes):
    pack()
    with pytest.raises(UserError, match="is packed already"):
        main(["--videos", "data/packed/eyes", "--num_processes", "0"])


def test_the_tasks_of_an_array_share_the_videos(workspace, eyes, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MAX", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    shares = []
    for task in ("1", "2"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        before = files(packed(workspace)) if packed(workspace).is_dir() else set()
        assert pack() == 0
        shares.append({name for name in files(packed(workspace)) - before if name.endswith(".tar")})
    assert sorted(shares[0] | shares[1]) == ["case_0.tar", "case_1.tar", "images.tar"]
    assert len(shares[0]) in (1, 2)
    assert not shares[0] & shares[1]


def test_a_video_that_cannot_be_packed_does_not_stop_the_others(workspace, eyes, caplog, capsys):
    (eyes / "videos" / "broken.mp4").write_text("not a video")
    assert pack() == 1
    assert "not packed: " in caplog.text
    assert "broken.mp4" in caplog.text
    assert "1 failed, 3 packed" in capsys.readouterr().out
    assert "broken.tar" not in files(packed(workspace))
    # who trains on it hears of it
    read_corpora(["data/packed/eyes"], workspace / "index.json", num_processes=0)
    assert "1 of 4 videos are not packed: broken" in caplog.text


def test_a_video_that_another_run_is_packing_is_left_to_it(workspace, eyes, capsys):
    with locks.hold(packed(workspace) / "case_0.tar"):
        assert pack() == 0
    assert "1 in use, 2 packed" in capsys.readouterr().out


@pytest.mark.slow
def test_processes_pack_the_same(workspace, eyes):
    pack()
    assert main(["--videos", "eyes", "--num_processes", "2", "--output", str(workspace / "other")]) == 0
    for path in packed(workspace).iterdir():
        assert (workspace / "other" / "eyes" / path.name).read_bytes() == path.read_bytes()


def test_check_names_what_is_damaged_and_what_is_missing(workspace, eyes, caplog, capsys):
    pack()
    assert pack("--check") == 0
    data = bytearray((packed(workspace) / "case_0.tar").read_bytes())
    data[700] ^= 1
    (packed(workspace) / "case_0.tar").write_bytes(data)
    (packed(workspace) / "case_1.json").unlink()
    assert pack("--check") == 1
    assert "1 whole, 1 damaged, 1 not packed" in capsys.readouterr().out
    assert "case_0.tar: expected SHA-256" in caplog.text


@pytest.mark.parametrize("wrong", [["--quality", "0"], ["--short_side", "-1"], ["--fps", "-4"], ["--shard", "3/2"]])
def test_wrong_options_are_refused(workspace, eyes, wrong):
    with pytest.raises(UserError, match=wrong[0].removeprefix("--")):
        pack(*wrong)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["opencv", "torchcodec"])
def test_another_decoder_packs_the_same_frames(workspace, eyes, decoder):
    try:
        require_decoder(decoder)
    except UserError as error:
        pytest.skip(str(error))
    assert pack() == 0
    assert main(["--videos", "eyes", "--decoder", decoder, "--output", str(workspace / "other")]) == 0
    for shard in packed(workspace).glob("*.tar"):
        ours, theirs = OpenPacked(shard), OpenPacked(workspace / "other" / "eyes" / shard.name)
        assert theirs.seconds == pytest.approx(ours.seconds)
        for number in range(len(ours.seconds)):
            assert np.abs(theirs.image(number).astype(int) - ours.image(number).astype(int)).mean() < 4


def test_a_decoder_that_is_not_there_is_named_before_anything_is_written(workspace, eyes, monkeypatch):
    for module in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"--decoder nvdec: not installed .*pip install torchcodec"):
        pack("--decoder", "nvdec")
    assert not packed(workspace).exists()
