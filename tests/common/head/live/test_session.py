"""Online answers to a file are those of the whole-video prediction, at its sampled frames; what is late is held and said."""

import json
import re
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.extract_features import main as extract_main
from common.features.files import open_features
from common.head.live.session import follow_file, require_online
from common.head.new_videos import Predictor, find_head, open_head
from common.predict_video import main
from common.train import main as train_main

SMALL = [
    "--num_layers_PG",
    "3",
    "--num_layers_R",
    "2",
    "--num_R",
    "1",
    "--num_f_maps",
    "8",
    "--num_epochs",
    "2",
    "--lr",
    "0.01",
]
HEADS = {
    "mstcn++": [*SMALL, "--causal"],
    "lookahead": [*SMALL, "--lookahead", "0.3"],
    "standardised": [*SMALL, "--causal", "--standardise", "train", "--sample_rate", "2"],
    "gru": ["--head", "gru", "--head_options", "hidden=8", "--causal", "--num_epochs", "2"],
    "linear": ["--head", "linear", "--num_epochs", "2", "--causal"],
    "tecno": ["--head", "tecno", "--head_options", "layers=3", "maps=8", "--num_epochs", "2"],
}
VARIABLE = np.cumsum([0, *np.random.default_rng(3).choice([0.02, 0.04, 0.033, 0.15], 58)])
VIDEOS = {"at_25": {"fps": 25}, "at_2997": {"fps": 30_000 / 1001}, "variable": {"seconds": VARIABLE}}
ENCODERS = {
    "histogram": ("ColorHistogram", []),
    "histogram 5": ("ColorHistogram", ["--fps", "5"]),
    "clips": ("V-JEPA2-Tiny", ["--weights", "random", "--anchor", "end"]),
    "clips 2": ("V-JEPA2-Tiny", ["--weights", "random", "--anchor", "end", "--stride", "3", "--clip_spacing", "0.1"]),
    "centred": ("V-JEPA2-Tiny", ["--weights", "random"]),
    "tokens": ("V-JEPA2-Tiny", ["--weights", "random", "--mode", "tokens"]),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory, checkout, make_clip):
    """A root with a data set of three videos of noise that grows lighter, of other rates, each with labels."""
    root = tmp_path_factory.mktemp("live")
    for model in ("ColorHistogram", "V-JEPA2-Tiny"):
        (root / "models" / model).mkdir(parents=True)
        shutil.copy(checkout / "models" / model / "config.yaml", root / "models" / model)
    dataset = paths.Dataset(root / "data" / "clips")
    random = np.random.default_rng(1)
    for name, rate in VIDEOS.items():
        levels = np.linspace(0, 180, 59)[:, None, None, None]
        frames = (random.integers(0, 70, (59, 48, 64, 3)) + levels).astype(np.uint8)
        make_clip(dataset.videos / f"{name}.mp4", list(frames), **rate)
        for folder in (dataset.ground_truth, dataset.ground_truth_val):
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.txt").write_text("background\n" * 20 + "wash\n" * 21 + "suture\n" * 18)
    dataset.mapping.write_text("0 background\n1 wash\n2 suture\n")
    return root


@pytest.fixture
def clips(built, tmp_path, monkeypatch):
    shutil.copytree(built, tmp_path / "root")
    monkeypatch.setenv("SICS155_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    return paths.dataset("clips")


def trained(encoder, head, *more):
    """A predictor of a head that learned from features of all videos."""
    model, extraction = ENCODERS[encoder]
    words = ["--dataset", "clips", "--device", "cpu"]
    assert extract_main([*words, "--variant", "v", *extraction], model=model) == 0
    words += ["--model", model, "--variant", "v", "--split", "val", "--run", "now"]
    assert train_main([*words, *HEADS[head], *more]) == 0
    return Predictor(open_head(find_head(paths.model(model), "clips", split="val", run="now")), device="cpu")


def whole_video(predictor, video, folder):
    """Rows of the whole-video prediction at the frames that the head was fed with, and their times."""
    features = folder / f"{video.stem}.npy"
    predictor.make_features({video.stem: video}, folder)
    phases = predictor.predict(video, features, folder / "out")
    timeline, rate = open_features(features).timeline, predictor.trained.config.sample_rate
    frames = timeline.sampled[::rate]
    return phases.probabilities[frames], timeline.seconds[frames]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "head"),
    [
        *(("histogram", head) for head in HEADS),
        *((encoder, "mstcn++") for encoder in ("histogram 5", "clips", "clips 2")),
        *((encoder, "lookahead") for encoder in ("histogram 5", "clips")),
    ],
)
def test_online_answers_are_those_of_the_whole_video_at_any_rate(clips, tmp_path, encoder, head):
    predictor = trained(encoder, head)
    for name in VIDEOS:
        video = clips.videos / f"{name}.mp4"
        expected, seconds = whole_video(predictor, video, tmp_path / "features")
        answers = list(follow_file(predictor, video))
        assert [answer.seconds for answer in answers] == pytest.approx(seconds.tolist(), abs=2e-3)
        assert np.abs(np.stack([answer.probabilities for answer in answers]) - expected).max() < 1e-5
        assert not any(answer.is_held for answer in answers)
        assert np.ptp(expected, axis=0).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["centred", "tokens"])
def test_features_that_have_seen_what_follows_are_refused_or_wait_for_it(clips, tmp_path, encoder):
    with pytest.raises(UserError, match=r"--causal: expected features that have seen nothing after .* --anchor end"):
        trained(encoder, "mstcn++")
    predictor = trained(encoder, "mstcn++", "--allow_future_features")
    assert re.search(r"look ahead by 0\.\d+ s \(windows", require_online(predictor, allow_future_features=False))
    video = clips.videos / "at_25.mp4"
    expected, _ = whole_video(predictor, video, tmp_path / "features")
    answers = list(follow_file(predictor, video))
    assert np.abs(np.stack([answer.probabilities for answer in answers]) - expected).max() < 1e-5
    assert np.median([answer.delay for answer in answers]) >= 3 / 25  # of a window of 8 frames those after its middle


def test_what_features_have_seen_is_said_of_a_prediction_of_the_whole_video(clips, tmp_path):
    predictor = trained("centred", "mstcn++", "--allow_future_features")
    video = clips.videos / "at_25.mp4"
    predictor.make_features({"at_25": video}, tmp_path)
    remarks = predictor.predict(video, tmp_path / "at_25.npy", tmp_path / "out").remarks
    assert any("features look ahead by 0.12 s" in remark for remark in remarks)


def test_a_head_of_before_is_asked_about_its_features_at_prediction(clips, monkeypatch):
    predictor = trained("centred", "mstcn++", "--allow_future_features")
    before = replace(predictor.trained, config=replace(predictor.trained.config, allow_future_features=False))
    monkeypatch.setattr(predictor, "trained", before)
    with pytest.raises(UserError, match="expected features that have seen nothing after their frame"):
        require_online(predictor, allow_future_features=False)
    assert "answers come so much later" in require_online(predictor, allow_future_features=True)


def test_an_offline_head_is_refused_with_what_to_do(clips):
    extract_main(["--dataset", "clips", "--device", "cpu"], model="ColorHistogram")
    train_main(["--dataset", "clips", "--model", "ColorHistogram", "--split", "val", "--device", "cpu", *SMALL])
    words = [str(clips.videos / "at_25.mp4"), "--dataset", "clips", "--model", "ColorHistogram", "--online"]
    with pytest.raises(
        UserError, match="depend on all that follows; expected a head that was trained with --causal or --lookahead"
    ):
        main(words)


def test_delay_is_what_the_head_waits_for_and_what_the_work_takes(clips):
    now, later = (
        list(follow_file(trained("histogram", head), clips.videos / "at_25.mp4")) for head in ("mstcn++", "lookahead")
    )
    # 0.3 s at the rate of the slowest video
    rate = 58 / VARIABLE[-1]
    frames = int(0.3 * rate)
    waited = [answer.delay for answer in later[: len(later) - frames]]
    assert min(waited) >= frames / 25 - 1e-6
    assert np.median(waited) < frames / 25 + 0.5
    assert np.median([answer.delay for answer in now]) < 0.5


def slowed(predictor, seconds, monkeypatch):
    """An encoder that takes so long for each call."""
    encode = predictor.extraction.encode

    def slow(frames):
        time.sleep(seconds)
        return encode(frames)

    monkeypatch.setattr(predictor.extraction, "encode", slow)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["histogram", "clips"])
def test_what_the_encoder_is_too_late_for_is_held_and_never_queued(clips, monkeypatch, encoder):
    predictor = trained(encoder, "mstcn++")
    slowed(predictor, 0.3, monkeypatch)
    answers = list(follow_file(predictor, clips.videos / "at_25.mp4", at_own_speed=True))
    seconds = [answer.seconds for answer in answers]
    assert seconds == sorted(seconds)
    assert np.diff(seconds) == pytest.approx(
        [1 / 25] * (len(answers) - 1), abs=1e-3
    )  # a row for every point of the grid
    held = sum(answer.is_held for answer in answers)
    assert 0.5 * len(answers) < held < len(answers)
    assert max(answer.delay for answer in answers) < 3  # a queue would end 59 x 0.3 s late


@pytest.mark.slow
def test_a_file_at_its_own_speed_takes_its_time_and_holds_nothing(clips):
    predictor = trained("histogram", "mstcn++")
    _ = predictor.extraction
    started = time.monotonic()
    answers = list(follow_file(predictor, clips.videos / "at_25.mp4", at_own_speed=True))
    assert time.monotonic() - started >= 58 / 25
    assert len(answers) == 59
    assert sum(answer.is_held for answer in answers) <= 6  # on a machine that does other things too


def test_lines_table_and_json_say_the_same(clips, capsys):
    trained("histogram", "lookahead")
    capsys.readouterr()
    words = [
        str(clips.videos / "at_25.mp4"),
        "--dataset",
        "clips",
        "--model",
        "ColorHistogram",
        "--split",
        "val",
        "--run",
        "now",
    ]
    assert main([*words, "--device", "cpu", "--online", "--json_lines", "--output", "out"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    table = [line.split(",") for line in (clips.root.parents[2] / "out" / "at_25_online.csv").read_text().splitlines()]
    assert table[0] == ["seconds", "phase", "confidence", "delay_seconds", "held"]
    assert [(float(row[0]), row[1]) for row in table[1:]] == [(round(row["seconds"], 3), row["phase"]) for row in rows]
    names = ["background", "wash", "suture"]
    assert all(names[int(np.argmax(row["probabilities"]))] == row["phase"] for row in rows)
    assert all(row["confidence"] == pytest.approx(max(row["probabilities"]), abs=1e-6) for row in rows)
    assert main([*words, "--device", "cpu", "--online"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 59
    assert lines[-1].startswith(f"0:02.32  {rows[-1]['phase']}  ")


def test_options_that_are_not_for_each_other_are_refused(clips):
    video = str(clips.videos / "at_25.mp4")
    for words, message in (
        ([video, "--realtime"], "--realtime: only with --online"),
        ([video, "--json_lines"], "--json_lines: only with --online"),
        ([video, "--online", "--overlay"], "--overlay: not with --online"),
        ([video, video, "--online"], "--online: expected one video, camera or address, found 2"),
        (["0", "--online", "--realtime"], "--realtime: a camera or stream plays at its own speed"),
    ):
        with pytest.raises(UserError, match=message):
            main(words)
