"""Corpora: which videos are found and kept, what is known of them, what is left out, and the manifest."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from common.base import paths
from common.base.files import read_json, video_fingerprint, write_json
from common.base.runtime import UserError
from common.dataset import manifest as manifests
from common.video.probe import VideoError
from pretrain.video_data import video_index
from pretrain.video_data.corpora import find_corpora, read_corpora, write_manifest
from pretrain.video_data.processes import KILLED, in_processes_of_their_own
from pretrain.video_data.video_index import probe_video, probe_videos


@pytest.fixture
def corpus(make_clip, tmp_path):
    """`corpus("name", {"video": num_frames, ...})` writes videos at 10 frames a second and returns the folder."""

    def write(name: str, videos: dict[str, int]):
        for video, num_frames in videos.items():
            level = len(name) * 10 + len(video)
            frames = [np.full((48, 64, 3), (index + level) % 256, np.uint8) for index in range(num_frames)]
            make_clip(tmp_path / name / f"{video}.mp4", frames, fps=10)
        return tmp_path / name

    return write


@pytest.fixture
def index(tmp_path):
    return tmp_path / "output" / "videos.json"


def names(corpora) -> dict[str, list[str]]:
    return {corpus.name: [video.name for video in corpus.videos] for corpus in corpora}


# --- which videos -------------------------------------------------------------------------------------------------


def test_every_folder_is_a_corpus_with_all_videos_below_it(corpus, index):
    sources = [str(corpus("eyes", {"b": 5, "a": 4, "2019/long": 6})), str(corpus("knees", {"a": 3}))]
    corpora = read_corpora(sources, index, num_processes=0)
    assert names(corpora) == {"eyes": ["2019/long", "a", "b"], "knees": ["a"]}
    assert corpora[0].seconds == pytest.approx(1.5)


def test_other_files_are_not_videos(corpus, index):
    folder = corpus("eyes", {"a": 4})
    for name in ("notes.txt", ".hidden.mp4", "frame.png"):
        (folder / name).write_text("x")
    assert names(read_corpora([str(folder)], index, num_processes=0)) == {"eyes": ["a"]}


def test_what_cannot_be_opened_is_left_out_and_named_and_hidden_files_are_none(corpus, index, caplog):
    folder = corpus("eyes", {"a": 4})
    (folder / "gone.mp4").symlink_to("nowhere.mp4")
    os.mkfifo(folder / "pipe.avi")
    (folder / "._a.mp4").write_bytes(b"\x00\x05\x16\x07")
    assert names(read_corpora([str(folder)], index, num_processes=0)) == {"eyes": ["a"]}
    left_out = [record.getMessage() for record in caplog.records if record.getMessage().startswith("left out: ")]
    assert [name in message for name, message in zip(("gone.mp4", "pipe.avi"), left_out, strict=True)] == [True, True]
    assert "left out 2 of 3 videos" in caplog.text


def test_a_data_set_is_a_corpus_of_its_name(corpus, workspace, index):
    folder = corpus("eyes", {"a": 4})
    (workspace / "data" / "Cataract-101").mkdir()
    (workspace / "data" / "Cataract-101" / "videos").symlink_to(folder)
    assert names(read_corpora(["Cataract-101"], index, num_processes=0)) == {"Cataract-101": ["a"]}


def test_a_source_without_videos_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no videos in this folder; expected files with \.mp4"):
        find_corpora([str(tmp_path / "empty")])


def test_a_source_that_does_not_exist_is_an_error(workspace):
    with pytest.raises(UserError, match="no data set 'nowhere'"):
        find_corpora(["nowhere"])


def test_two_corpora_of_one_name_are_an_error(corpus):
    sources = [str(corpus("one/eyes", {"a": 2})), str(corpus("two/eyes", {"a": 2}))]
    with pytest.raises(UserError, match="two corpora are called 'eyes'"):
        find_corpora(sources)


def test_two_videos_of_one_name_are_an_error(corpus):
    folder = corpus("eyes", {"a": 2})
    (folder / "a.mkv").write_bytes(b"x")
    with pytest.raises(UserError, match=r"two videos are called 'a': a\.mkv and a\.mp4"):
        find_corpora([str(folder)])


def test_no_source_is_an_error():
    with pytest.raises(UserError, match="name at least one folder"):
        find_corpora([])


# --- folders of images --------------------------------------------------------------------------------------------


def write_images(folder, num_images: int = 6) -> None:
    folder.mkdir(parents=True)
    for number in range(num_images):
        Image.new("RGB", (64, 48), (40 * number + len(folder.name),) * 3).save(folder / f"{number + 1:06d}.png")


def seconds_of(corpora) -> dict[str, float]:
    return {video.name: video.duration_seconds for corpus in corpora for video in corpus.videos}


@pytest.mark.parametrize("place", ["eyes/dataset.yaml", "dataset.yaml"])
def test_folders_of_images_are_videos_of_the_rate_that_is_said(tmp_path, index, caplog, place):
    """Beside the videos, or a folder above, where a data set has it."""
    write_images(tmp_path / "eyes" / "a")
    (tmp_path / place).write_text("frames_fps: 2\n")
    assert seconds_of(read_corpora([str(tmp_path / "eyes")], index, num_processes=0)) == {"a": 3.0}
    assert "unknown rate" not in caplog.text


def test_an_imported_data_set_of_images_is_a_corpus_at_any_depth(workspace, tmp_path, index):
    """As importers leave it: links to folders of a release."""
    write_images(tmp_path / "release" / "frames")
    root = workspace / "data" / "GraSP"
    (root / "videos" / "2019").mkdir(parents=True)
    (root / "videos" / "2019" / "case").symlink_to(tmp_path / "release" / "frames")
    (root / "mapping.txt").write_text("0 wash\n")
    (root / "dataset.yaml").write_text("frames_fps: 1\n")
    assert seconds_of(read_corpora(["GraSP"], index, num_processes=0)) == {"2019/case": 6.0}


def test_a_rate_that_is_unknown_is_said_and_one_that_is_learned_counts(tmp_path, index, caplog):
    write_images(tmp_path / "eyes" / "a")
    assert seconds_of(read_corpora([str(tmp_path / "eyes")], index, num_processes=0)) == {"a": pytest.approx(6 / 25)}
    assert "eyes: 1 folder of images of an unknown rate, taken for 25 a second: a" in caplog.text
    (tmp_path / "eyes" / "dataset.yaml").write_text("frames_fps: 2\n")
    assert seconds_of(read_corpora([str(tmp_path / "eyes")], index, num_processes=0)) == {"a": 3.0}


# --- what is known of them ----------------------------------------------------------------------------------------


def test_a_video_is_measured_by_its_decoded_frames(make_clip, tmp_path):
    times = 3 + np.arange(20) / 10
    path = make_clip(tmp_path / "a.mkv", [np.zeros((48, 64, 3), np.uint8)] * 20, fps=10, seconds=times)
    entry = probe_video(path)
    assert entry.start_seconds == pytest.approx(3, abs=1e-3)
    assert entry.duration_seconds == pytest.approx(2, abs=2e-3)
    assert (entry.name, entry.path, entry.fps) == ("a", path, 10)
    assert entry.size_bytes == path.stat().st_size
    assert entry.fingerprint == video_fingerprint(path)


def test_duration_does_not_come_from_a_header_that_lies(reference_data):
    path = reference_data / "data" / "videos" / "tree.avi"
    entry = probe_video(path)
    assert entry.num_frames == 444  # as the header says; 68 decode
    assert entry.duration_seconds == pytest.approx(29.6, abs=0.1)


def test_the_index_spares_a_second_look(corpus, index, monkeypatch):
    sources = [str(corpus("eyes", {"a": 4, "b": 5}))]
    first = read_corpora(sources, index, num_processes=0)
    monkeypatch.setattr(video_index, "probe_video", None)
    assert read_corpora(sources, index, num_processes=0) == first


def test_a_changed_video_is_looked_into_again(corpus, index):
    folder = corpus("eyes", {"a": 4, "b": 5})
    before = read_corpora([str(folder)], index, num_processes=0)[0].videos
    corpus("eyes", {"a": 9})
    after = read_corpora([str(folder)], index, num_processes=0)[0].videos
    assert after[0].duration_seconds == pytest.approx(0.9)
    assert after[1] == before[1]


def test_a_changed_time_alone_counts(corpus, index, monkeypatch):
    path = corpus("eyes", {"a": 4}) / "a.mp4"
    probe_videos([path], index, 0)
    os.utime(path, ns=(0, 0))
    looked_into = []
    monkeypatch.setattr(video_index, "probe_video", lambda path: looked_into.append(path) or probe_video(path))
    probe_videos([path], index, 0)
    assert looked_into == [path]


def test_an_index_of_another_format_is_made_anew(corpus, index):
    sources = [str(corpus("eyes", {"a": 4}))]
    write_json(index, {"format": 0, "videos": {"something": "else"}})
    assert names(read_corpora(sources, index, num_processes=0)) == {"eyes": ["a"]}
    assert read_json(index)["format"] == 1


DAMAGED = ["", "[]", '{"format": 1}', '{"format": 1, "videos": {"/a.mp4": {"fps": "many"}}}', "\0"]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_index_is_named_and_made_anew(corpus, index, text, caplog):
    sources = [str(corpus("eyes", {"a": 4}))]
    index.parent.mkdir()
    index.write_text(text)
    assert names(read_corpora(sources, index, num_processes=0)) == {"eyes": ["a"]}
    assert f"{index}: cannot be used" in caplog.text
    assert len(read_json(index)["videos"]) == 1


def test_an_interruption_keeps_what_was_found(corpus, index, monkeypatch):
    folder = corpus("eyes", {"a": 4, "b": 5})

    def interrupted_at_b(path):
        if path.stem == "b":
            raise KeyboardInterrupt
        return probe_video(path)

    monkeypatch.setattr(video_index, "probe_video", interrupted_at_b)
    with pytest.raises(KeyboardInterrupt):
        read_corpora([str(folder)], index, num_processes=0)
    assert list(read_json(index)["videos"]) == [str(folder / "a.mp4")]


def test_processes_find_the_same(corpus, index, tmp_path):
    folder = corpus("eyes", {"a": 4, "b": 5, "c": 6})
    (folder / "broken.mp4").write_text("not a video")
    one = read_corpora([str(folder)], tmp_path / "other.json", num_processes=0)
    assert read_corpora([str(folder)], index, num_processes=2) == one


def die_at_b(path):
    if path.stem == "b":
        os._exit(11)
    return probe_video(path)


def test_a_video_that_kills_its_process_is_left_out(corpus):
    folder = corpus("eyes", {"a": 4, "b": 5, "c": 6})
    files = [folder / f"{name}.mp4" for name in "abc"]
    found = dict(in_processes_of_their_own(die_at_b, files, 2, lambda path: VideoError(path, KILLED)))
    assert isinstance(found[folder / "b.mp4"], VideoError)
    assert "the process that decoded it died" in str(found[folder / "b.mp4"])
    assert found[folder / "a.mp4"] == probe_video(folder / "a.mp4")
    assert found[folder / "c.mp4"] == probe_video(folder / "c.mp4")


# --- what is left out ---------------------------------------------------------------------------------------------


def test_unreadable_videos_are_left_out_counted_and_named(corpus, index, caplog):
    folder = corpus("eyes", {"a": 4})
    (folder / "BL_0007.mp4").write_text("not a video")
    assert names(read_corpora([str(folder)], index, num_processes=0)) == {"eyes": ["a"]}
    assert "left out" in caplog.text
    assert "BL_0007.mp4" in caplog.text
    assert "1 of 2 videos" in caplog.text


def test_a_copy_is_left_out(corpus, index, caplog):
    first, second = corpus("eyes", {"a": 4}), corpus("more", {"other": 7})
    (second / "same.mp4").write_bytes((first / "a.mp4").read_bytes())
    corpora = read_corpora([str(first), str(second)], index, num_processes=0)
    assert names(corpora) == {"eyes": ["a"], "more": ["other"]}
    assert "more: 1 left out, excluded or copies of others: same" in caplog.text


@pytest.fixture
def labelled(corpus, workspace):
    """A data set whose two videos are also in the corpus, under other names; a split tests the first."""
    folder = corpus("eyes", {"case 1": 4, "case 2": 5, "case 3": 6})
    dataset = workspace / "data" / "Labelled"
    (dataset / "videos").mkdir(parents=True)
    (dataset / "splits").mkdir()
    for number in (1, 2):
        (dataset / "videos" / f"BL_{number}.mp4").write_bytes((folder / f"case {number}.mp4").read_bytes())
    (dataset / "splits" / "test.split1.bundle").write_text("BL_1.txt\n")
    return folder


def test_videos_of_an_excluded_data_set_are_left_out_under_any_name(labelled, index):
    corpora = read_corpora([str(labelled)], index, exclude=["Labelled"], num_processes=0)
    assert names(corpora) == {"eyes": ["case 3"]}


def test_a_split_excludes_its_own_videos(labelled, workspace, index):
    bundle = workspace / "data" / "Labelled" / "splits" / "test.split1.bundle"
    corpora = read_corpora([str(labelled)], index, exclude=[str(bundle)], num_processes=0)
    assert names(corpora) == {"eyes": ["case 2", "case 3"]}


def test_a_split_whose_video_is_not_there_is_an_error(labelled, workspace, index):
    bundle = workspace / "data" / "Labelled" / "splits" / "test.split1.bundle"
    bundle.write_text("BL_1.txt\nBL_9.txt\n")
    with pytest.raises(UserError, match=r"test\.split1\.bundle: no file in .* for BL_9"):
        read_corpora([str(labelled)], index, exclude=[str(bundle)], num_processes=0)


def test_a_split_names_its_videos_however_their_accents_are_encoded(labelled, workspace, index):
    dataset = paths.dataset("Labelled")
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    (dataset.videos / "BL_1.mp4").rename(dataset.videos / f"{decomposed}.mp4")
    dataset.bundle("test", 1).write_text(f"{composed}.txt\n", encoding="utf-8")
    corpora = read_corpora([str(labelled)], index, exclude=[str(dataset.bundle("test", 1))], num_processes=0)
    assert names(corpora) == {"eyes": ["case 2", "case 3"]}


def test_an_excluded_video_that_is_not_there_is_an_error(labelled, workspace, index):
    (paths.dataset("Labelled").videos / "gone.mp4").symlink_to("nowhere.mp4")
    with pytest.raises(UserError, match=r"gone\.mp4: to be excluded, but a link to nothing"):
        read_corpora([str(labelled)], index, exclude=["Labelled"], num_processes=0)


def test_videos_of_a_manifest_are_left_out(labelled, index, tmp_path):
    seen = read_corpora([str(labelled)], index, num_processes=0)
    write_manifest(tmp_path / "manifest.json", "ssl", "vjepa2-tiny", corpora=seen)
    with pytest.raises(UserError, match="corpus eyes: none of its 3 videos is left"):
        read_corpora([str(labelled)], index, exclude=[str(tmp_path / "manifest.json")], num_processes=0)


# --- manifest -----------------------------------------------------------------------------------------------------


def test_the_manifest_is_what_the_leak_check_reads(corpus, index, tmp_path):
    corpora = read_corpora([str(corpus("eyes", {"a": 4, "b": 5}))], index, num_processes=0)
    write_manifest(tmp_path / "ssl.json", "ssl", "vjepa2-tiny", corpora=corpora)
    write_manifest(tmp_path / "manifest.json", "lora", "vjepa2-tiny", corpora=[], based_on=["ssl.json"])
    manifest = manifests.read_manifest(tmp_path / "ssl.json")
    assert (manifest.stage, manifest.model) == ("ssl", "vjepa2-tiny")
    assert [(video.corpus, video.name) for video in manifest.videos] == [("eyes", "a"), ("eyes", "b")]
    assert manifest.videos[0].fingerprint == corpora[0].videos[0].fingerprint
    assert manifests.read_manifest(tmp_path / "manifest.json").based_on == (tmp_path / "ssl.json",)
