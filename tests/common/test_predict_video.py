"""The command for new videos, end to end: a head learns colours, and finds them in videos that it has not seen."""

import csv
import json
import logging
import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.base import paths
from common.base.runtime import UserError
from common.dataset.phases import PhaseMapping, read_labels
from common.extract_features import main as extract_main
from common.features.config import extraction_like
from common.features.files import open_features
from common.head.new_videos import open_head
from common.predict_video import main
from common.reports.pictures import overlay, timeline
from common.train import main as train_main
from common.video.decode import decode

PHASES = PhaseMapping(("background", "wash", "suture"))
COLOURS = np.array([(200, 40, 40), (40, 180, 60), (40, 60, 200)], dtype=np.uint8)
LAYERS = ["--num_layers_PG", "3", "--num_layers_R", "2", "--num_R", "1", "--num_f_maps", "8"]
HEAD = [*LAYERS, "--num_epochs", "25", "--lr", "0.01"]
SHORT = ["--num_epochs", "1"]  # where it does not matter what is predicted
NEW_PHASES = np.repeat([0, 2, 1], [20, 30, 14])


def coloured(phase_ids):
    """A frame of the phase's colour for each id, with some noise."""
    noise = np.random.default_rng(len(phase_ids)).integers(0, 30, (len(phase_ids), 48, 64, 3), dtype=np.uint8)
    return list(COLOURS[phase_ids][:, None, None] + noise)


def learn(*extraction, head=()):
    """Extract the data set's features and train; returns the checkpoint."""
    words = ["--dataset", "clips", "--device", "cpu"]
    assert extract_main([*words, "--force", *extraction], model="ColorHistogram") == 0
    assert train_main([*words, "--model", "ColorHistogram", "--split", "val", *HEAD, *head]) == 0
    return paths.model("ColorHistogram").checkpoint("clips", "val")


@pytest.fixture(scope="module")
def built(tmp_path_factory, checkout, make_clip):
    """A root with two model folders, a data set of three videos whose phases are colours, and a head that learned them."""
    root = tmp_path_factory.mktemp("built")
    for model in ("ColorHistogram", "Base"):
        (root / "models" / model).mkdir(parents=True)
        shutil.copy(checkout / "models" / model / "config.yaml", root / "models" / model)
    dataset = paths.Dataset(root / "data" / "clips")
    for name, order in (("BL_0", [0, 1, 2, 0]), ("BL_1", [0, 2, 1, 0]), ("BL_2", [1, 0, 2, 1])):
        phase_ids = np.repeat(order, [16, 22, 18, 12])
        make_clip(dataset.videos / f"{name}.mp4", coloured(phase_ids))
        for folder in (dataset.ground_truth, dataset.ground_truth_val):
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.txt").write_text("".join(f"{PHASES.names[phase]}\n" for phase in phase_ids))
    dataset.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(PHASES.names)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SICS155_ROOT", str(root))
        learn()
    return root


@pytest.fixture
def trained(built, tmp_path, monkeypatch):
    """The head's checkpoint in a copy of the root, and an empty current folder."""
    shutil.copytree(built, tmp_path / "root")
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("SICS155_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path / "here")
    return paths.model("ColorHistogram").checkpoint("clips", "val")


@pytest.fixture
def clips(trained):
    """The data set that the head learned."""
    return paths.dataset("clips")


@pytest.fixture
def uneven(make_clip, tmp_path):
    """A new video of a variable rate: every fifth gap is long."""
    gaps = np.where(np.arange(len(NEW_PHASES)) % 5 == 4, 0.2, 0.04)
    seconds = np.concatenate(([0], np.cumsum(gaps)[:-1]))
    return make_clip(tmp_path / "case_7.mp4", coloured(NEW_PHASES), seconds=seconds), seconds


def run(*words):
    return main([*map(str, words), "--device", "cpu"])


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_every_file_of_a_new_video_agrees_with_what_is_in_it(trained, uneven, tmp_path, capsys):
    video, seconds = uneven
    assert run(video, "--checkpoint", trained, "--overlay") == 0
    folder = tmp_path / "here" / "case_7_phases"
    assert capsys.readouterr().out == f"{folder}\n"
    assert sorted(path.name for path in folder.iterdir()) == [
        "case_7.npy", "case_7.txt", "case_7_phases.mp4", "case_7_ribbon.png", "case_7_segments.csv", "features",
    ]  # fmt: skip
    probabilities = np.load(folder / "case_7.npy")
    assert probabilities.shape == (64, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert read_labels(folder / "case_7.txt", PHASES).tolist() == NEW_PHASES.tolist()
    rows = rows_of(folder / "case_7_segments.csv")
    assert [(row["phase"], row["start_frame"], row["end_frame"]) for row in rows] == [
        ("background", "0", "20"), ("suture", "20", "50"), ("wash", "50", "64"),
    ]  # fmt: skip
    starts = [float(row["start_seconds"]) for row in rows]
    assert starts == pytest.approx([0, 20 / 5 * 0.36, 50 / 5 * 0.36], abs=1e-3)
    assert float(rows[-1]["end_seconds"]) == pytest.approx(seconds[-1] + 0.04, abs=1e-3)
    assert float(rows[1]["confidence"]) == pytest.approx(probabilities[20:50, 2].mean(), abs=1e-4)
    assert [frame.seconds for frame in decode(folder / "case_7_phases.mp4")] == pytest.approx(seconds, abs=1e-5)


def test_the_data_set_need_not_be_on_this_machine(trained, uneven, clips, tmp_path):
    run(uneven[0], "--checkpoint", trained, "--output", tmp_path / "with")
    shutil.rmtree(clips.root)
    moved = shutil.copy(trained, tmp_path / "head.pt")
    shutil.rmtree(paths.model("ColorHistogram").root / "checkpoints")
    assert run(uneven[0], "--checkpoint", moved, "--output", tmp_path / "without") == 0
    assert np.array_equal(np.load(tmp_path / "with" / "case_7.npy"), np.load(tmp_path / "without" / "case_7.npy"))


@pytest.mark.parametrize("options", [("--fps", "12.5", "--dtype", "float16"), ("--decoder", "opencv")])
def test_features_are_made_as_for_training(clips, tmp_path, options):
    checkpoint = learn(*options, head=SHORT)
    assert run(clips.videos / "BL_1.mp4", "--checkpoint", checkpoint, "--output", tmp_path / "out") == 0
    made = open_features(paths.Dataset(tmp_path / "out").features("ColorHistogram") / "BL_1.npy")
    training = open_features(clips.features("ColorHistogram") / "BL_1.npy")
    assert made.identity() == training.identity()
    assert np.array_equal(made.array, training.array)
    assert np.load(tmp_path / "out" / "BL_1.npy").shape == (68, 3)  # a row a frame, whatever was sampled


def test_every_second_feature_is_expanded_to_every_frame(clips, uneven, tmp_path):
    checkpoint = learn(head=["--sample_rate", "2", *SHORT])
    run(uneven[0], "--checkpoint", checkpoint, "--output", tmp_path / "out")
    rows = np.load(tmp_path / "out" / "case_7.npy")
    assert len(rows) == 64
    assert np.array_equal(rows[1], rows[0])  # of two equally near features the earlier
    assert not np.array_equal(rows[1], rows[2])


def test_finished_features_are_used_again(trained, uneven, extracted):
    run(uneven[0], "--checkpoint", trained)
    run(uneven[0], "--checkpoint", trained)
    assert extracted == ["case_7"]


def test_features_of_other_options_or_of_another_file_are_made_again(trained, uneven, extracted, make_clip, tmp_path):
    run(uneven[0], "--checkpoint", trained, "--output", "out")
    other = learn("--fps", "12.5", head=SHORT)
    run(uneven[0], "--checkpoint", other, "--output", "out")
    assert extracted == ["case_7", "BL_0", "BL_1", "BL_2", "case_7"]
    make_clip(uneven[0], coloured(NEW_PHASES[:30]))
    run(uneven[0], "--checkpoint", other, "--output", "out")
    assert len(np.load("out/case_7.npy")) == 30


def test_damaged_features_are_made_again(trained, uneven, extracted, tmp_path):
    run(uneven[0], "--checkpoint", trained)
    features = paths.Dataset(tmp_path / "here" / "case_7_phases").features("ColorHistogram") / "case_7.npy"
    features.write_bytes(features.read_bytes()[:300])
    assert run(uneven[0], "--checkpoint", trained) == 0
    assert extracted == ["case_7", "case_7"]


def test_one_bad_video_is_named_and_the_others_go_on(trained, uneven, clips, tmp_path, caplog, capsys):
    text, cut = tmp_path / "notes.mp4", tmp_path / "cut.mp4"
    text.write_text("not a video")
    whole = (clips.videos / "BL_0.mp4").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    videos = [text, tmp_path / "absent.mp4", cut, uneven[0], clips.videos / "BL_2.mp4"]
    assert run(*videos, "--checkpoint", trained, "--output", tmp_path / "out") == 1
    messages = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert f"error: {text}: cannot be decoded after 0 frames" in messages[0]
    assert f"error: {tmp_path / 'absent.mp4'}: no such video file" in messages[1]
    assert f"error: {cut}: cannot be decoded after" in messages[2]
    assert messages[3:] == ["error: 3 of 5 videos failed: notes.mp4, absent.mp4, cut.mp4"]
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.txt")) == ["BL_2", "case_7"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out")] * 2


def test_an_output_that_is_a_file_is_named(trained, uneven, caplog):
    blocking = uneven[0].with_name("results")
    blocking.write_text("")
    assert run(uneven[0], "--checkpoint", trained, "--output", blocking) == 1
    assert f"error: {blocking}: cannot write there (File exists); choose another --output" in caplog.text


def test_results_are_called_as_the_video_composed(trained, uneven, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    video = uneven[0].rename(tmp_path / f"{decomposed}.MP4")
    assert run(video, "--checkpoint", trained, "--output", tmp_path / "out") == 0
    written = {path.name for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert written == {f"{composed}{end}" for end in (".txt", ".npy", "_segments.csv", "_ribbon.png")}


def test_a_name_that_some_system_cannot_store_is_refused(trained, uneven, tmp_path, caplog):
    video = uneven[0].rename(tmp_path / "nul.mp4")
    assert run(video, "--checkpoint", trained) == 1
    assert "the name of a device on Windows; rename it" in caplog.text


def test_two_videos_of_one_name_are_refused(trained, uneven, tmp_path):
    with pytest.raises(UserError, match="two videos are called 'case_7'"):
        run(uneven[0], tmp_path / "elsewhere" / "case_7.avi", "--checkpoint", trained)


def test_an_overlay_never_replaces_a_video_that_is_predicted(trained, uneven):
    other = uneven[0].with_name("case_7_phases.mp4")
    with pytest.raises(UserError, match=r"case_7_phases\.mp4: an overlay would replace this video"):
        run(uneven[0], other, "--checkpoint", trained, "--overlay", "--output", other.parent)


def test_a_given_checkpoint_that_is_absent_is_named(workspace, tmp_path):
    with pytest.raises(UserError, match=r"gone\.pt: no such checkpoint"):
        run("case.mp4", "--checkpoint", tmp_path / "gone.pt")


def test_a_checkpoint_of_another_model_is_refused_with_both_dimensions(trained, uneven):
    with pytest.raises(
        UserError, match=r"features of ColorHistogram \(feature_dim 48\), not of Base \(feature_dim 2048\)"
    ):
        run(uneven[0], "--checkpoint", trained, "--model", "Base")


def test_an_encoder_that_changed_since_training_is_named(trained, uneven, caplog):
    config = paths.model("ColorHistogram").config
    config.write_text(config.read_text().replace("size: 112", "size: 96"))
    assert run(uneven[0], "--checkpoint", trained) == 1
    assert "ColorHistogram makes other features here than the head learned from: preprocessing: " in caplog.text


def test_a_head_of_features_without_sidecars_is_refused(trained, uneven):
    content = torch.load(trained, weights_only=True)
    torch.save(content | {"feature_identity": None}, trained)
    with pytest.raises(UserError, match="trained on features without sidecars"):
        run(uneven[0], "--checkpoint", trained)


def with_weights(head, record, published):
    """A head whose features were made with the weights in `record`, by an encoder that has its own `published` ones."""
    return replace(head, identity=head.identity | {"weights": record}, encoder=replace(head.encoder, weights=published))


@pytest.mark.parametrize(
    ("record", "published", "given", "expected"),
    [
        ({"source": "hub:a/b"}, "hub:a/b", None, {}),
        ({"source": "/scratch/w.pt"}, "hub:a/b", None, {"weights": "/scratch/w.pt"}),
        ({"source": "/scratch/w.pt"}, "hub:a/b", "here.pt", {"weights": "here.pt"}),
        ({"source": "pretrain:x"}, "pretrain:x", None, {}),
        ({"source": "export"}, "pretrain:x", None, {"ssl_checkpoint": "export"}),
        (
            {"source": "export", "adapter": {"source": "lora"}}, "pretrain:x", None,
            {"ssl_checkpoint": "export", "lora_path": "lora"},
        ),
    ],
)  # fmt: skip
def test_weights_are_asked_for_as_at_training(trained, record, published, given, expected):
    head = with_weights(open_head(trained), record, published)
    options = extraction_like(head.identity, head.encoder, given)
    found = {key: getattr(options, key) for key in ("weights", "ssl_checkpoint", "lora_path")}
    assert {key: value for key, value in found.items() if value} == expected


def test_random_weights_and_synthetic_data_are_said(trained, clips):
    head = open_head(trained)
    assert head.remarks == ()
    assert "Colour histogram features, MS-TCN++ head trained on clips (split val)" in head.description
    (clips.root / "sample.json").write_text("{}")
    head = with_weights(open_head(trained), {"source": "random"}, "none")
    assert [remark.partition(":")[0] for remark in head.remarks] == [
        "random encoder weights", "head trained on synthetic data",
    ]  # fmt: skip


def test_the_record_of_the_run_says_synthetic_where_the_data_set_is_gone(trained, clips):
    record = paths.model("ColorHistogram").split_results("clips", "val") / "run.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"synthetic": True}))
    shutil.rmtree(clips.root)
    assert len(open_head(trained).remarks) == 1


def test_a_video_that_the_head_learned_from_is_named(trained, uneven, clips, tmp_path, caplog):
    """By content under any name; by name alone where the features say nothing of it."""
    learned, renamed = clips.videos / "BL_0.mp4", tmp_path / "other.mp4"
    shutil.copy(learned, renamed)
    namesake = tmp_path / "BL_1.mp4"
    shutil.copy(uneven[0], namesake)
    head = open_head(trained)
    assert "this video was in the training part" in head.remarks_on(learned)[-1]
    assert "this video, there called BL_0, was in the training part" in head.remarks_on(renamed)[-1]
    assert head.remarks_on(namesake) == head.remarks_on(uneven[0]) == ()
    assert run(str(renamed), "--checkpoint", trained) == 0
    assert "other.mp4: this video, there called BL_0, was in the training part of this head" in caplog.text

    shutil.rmtree(clips.features("ColorHistogram"))
    assert "a video called BL_1 was in the training part" in open_head(trained).remarks_on(namesake)[-1]
    shutil.rmtree(clips.root)
    assert open_head(trained).remarks_on(learned.with_name("BL_0.mp4")) == ()


def test_a_head_knows_the_background_of_its_training_data(trained):
    """By `dataset.yaml` then, `background` where the file is of an earlier version that did not say."""
    content = torch.load(trained, weights_only=True)
    phase = content["phases"][1]
    torch.save(content | {"background": phase}, trained)
    assert open_head(trained).mapping.background == phase
    del content["background"]
    torch.save(content, trained)
    assert open_head(trained).mapping.background == "background"


def test_remarks_reach_the_picture_and_the_video(trained, uneven, clips, monkeypatch):
    (clips.root / "sample.json").write_text("{}")
    seen = []
    monkeypatch.setattr(timeline, "timeline_plot", lambda phases, _: seen.append(phases.remarks))
    monkeypatch.setattr(overlay, "write_overlay", lambda _, phases, *__, **___: seen.append(phases.remarks))
    run(uneven[0], "--checkpoint", trained, "--overlay")
    assert seen == [("head trained on synthetic data: it has seen no surgery",)] * 2


def test_the_default_is_the_head_of_the_model_one_is_in(trained, uneven, monkeypatch, caplog):
    monkeypatch.chdir(paths.model("ColorHistogram").root)
    with caplog.at_level(logging.INFO):
        assert run(uneven[0], "--dataset", "clips") == 0
    assert f"{trained}: Colour histogram features" in caplog.text


def test_help_lists_the_files(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for word in ("<video>_segments.csv", "<video>_phases.mp4", "--split", "--overlay", "--checkpoint"):
        assert word in shown
