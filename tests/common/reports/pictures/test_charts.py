"""Pictures: what is drawn, in which colours, and that nothing is drawn from nothing."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from common.base import paths
from common.dataset.phases import IGNORED, read_mapping
from common.head.experiment import load_experiment
from common.reports.caveats import Remark
from common.reports.chart_data import score_ribbons, worst_to_best
from common.reports.comparison import Report, make_report
from common.reports.pictures import charts, embedding
from common.reports.pictures.ribbons import ribbon_plot
from common.reports.pictures.style import phase_colours, save
from common.reports.published import read_published
from common.reports.results import collect_all
from common.reports.written import write_comparison
from common.run_k_folds import main as run_k_folds
from common.scoring.protocols import CHALLENGE
from common.scoring.video_score import VideoScore

HEAD = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "8", "--num_epochs", "2"]
WORDS = ["--dataset", "made", "--model", "ColorHistogram", "--folds", "2", "--device", "cpu", *HEAD]


@pytest.fixture
def report(made) -> Report:
    """One encoder on two folds, with all and with two thirds of the training videos."""
    run_k_folds([*WORDS, "--train_fraction", "0.67,1.0"])
    return make_report(made.dataset, collect_all(made.dataset, 2).results, [CHALLENGE], published=read_published()[:2])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def share_of(path: Path, colour: str) -> float:
    """Share of a picture's pixels that have exactly this colour."""
    wanted = np.round(255 * np.array(to_rgb(colour))).astype(np.uint8)
    return float((pixels(path) == wanted).all(axis=2).mean())


PICTURES = {
    "chart": charts.comparison_chart,
    "table": charts.comparison_table,
    "cost": charts.cost_picture,
    "learning": charts.learning_curves,
    "efficiency": charts.efficiency_picture,
    "phases": charts.phase_heat_map,
    "features": embedding.feature_map,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_drawn_as_png_and_on_request_as_pdf(report, tmp_path, name):
    written = save(PICTURES[name](report), tmp_path / f"{name}.png", pdf=True)
    assert written == [tmp_path / f"{name}.png", tmp_path / f"{name}.pdf"]
    assert pixels(written[0]).std() > 5, "the picture is empty"
    assert written[1].read_bytes().startswith(b"%PDF")
    assert save(PICTURES[name](report), tmp_path / "alone.png") == [tmp_path / "alone.png"]


def test_without_several_fractions_there_is_no_curve_of_label_efficiency(report, tmp_path):
    report.efficiency.clear()
    assert save(charts.efficiency_picture(report), tmp_path / "none.png") == []
    assert not (tmp_path / "none.png").exists()


def test_without_features_there_is_no_map_of_them_and_the_log_says_why(report, caplog):
    for path in report.dataset.features("ColorHistogram").glob("*.npy"):
        path.unlink()
    assert embedding.feature_map(report) is None
    assert "no feature map of ColorHistogram" in caplog.text


def test_the_sample_of_frames_is_even_over_phases_and_always_the_same(report):
    features, phases = embedding.sample_frames(report.results[0], report)
    again, _ = embedding.sample_frames(report.results[0], report)
    assert features.shape == (len(phases), 48)
    assert np.array_equal(features, again)
    counts = np.bincount(phases)
    assert counts.max() <= embedding.FRAMES_PER_PHASE + 6
    assert counts.min() > 20


def test_the_sample_takes_the_features_that_a_head_learns_the_labels_with(made, monkeypatch):
    """Of labels at every second frame, one of which the features of a video do not reach."""
    made.dataset.description.write_text("label_every: 2\n")
    for path in sorted(made.dataset.ground_truth.glob("*.txt")):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[::2]))
    rows = np.load(made.features / "BL_1.npy").T
    made.write_features("BL_1", rows[:-2] if len(rows) % 2 else rows[:-3])
    run_k_folds(WORDS)
    report = make_report(made.dataset, collect_all(made.dataset, 2).results, [CHALLENGE])
    monkeypatch.setattr(embedding, "FRAMES_PER_PHASE", 10_000)
    features, phases = embedding.sample_frames(report.results[0], report)
    experiment = load_experiment(made.config(split="1"))
    videos = experiment.open({**experiment.train_labels, **experiment.test_labels})
    expected = []
    for video in sorted(videos, key=lambda video: video.name):
        true, standing = report.results[0].scores[video.name].true, video.rows[video.rows_of_labels()]
        expected += [standing[true == phase] for phase in np.unique(true[true != IGNORED])]
    assert np.array_equal(features, np.concatenate(expected))
    num_labels = sum(len(score.true) for score in report.results[0].scores.values())
    assert len(phases) == num_labels - 1, "nothing is learned from what lies past a video's end"


def test_more_than_the_most_frames_are_drawn_from(report, monkeypatch):
    monkeypatch.setattr(embedding, "MOST_FRAMES", 7)
    features, phases = embedding.sample_frames(report.results[0], report)
    assert len(features) == len(phases) == 7


@pytest.mark.slow
def test_the_map_of_features_is_computed_once_for_the_same_features(report, monkeypatch, tmp_path):
    monkeypatch.setenv("SICS155_CACHE", str(tmp_path))
    calls, places = [], embedding._places
    monkeypatch.setattr(embedding, "_places", lambda features: calls.append(1) or places(features))
    features, phases = embedding.sample_frames(report.results[0], report)
    first, again = (embedding._embed(features, phases)[0] for _ in range(2))
    assert np.array_equal(first, again)
    assert len(calls) == 1
    embedding._embed(features + 1, phases)
    assert len(calls) == 2, "of other features"
    for note in tmp_path.rglob("*.npy"):
        note.write_bytes(b"damaged")
    assert np.array_equal(embedding._embed(features, phases)[0], first)
    assert len(calls) == 3


def test_an_alarming_remark_is_written_in_red(report, tmp_path):
    quiet, loud = tmp_path / "quiet.png", tmp_path / "loud.png"
    report.unlearned.clear()  # two epochs teach a head nothing, which is red too
    report.remarks[:] = [remark for remark in report.remarks if not remark.alarming]
    save(charts.comparison_table(report), quiet)
    report.remarks.insert(0, Remark("Leak: a test video was seen in pretraining", alarming=True))
    save(charts.comparison_table(report), loud)
    assert share_of(quiet, "#B00020") == 0
    assert share_of(loud, "#B00020") > 0


def ribbons_of_one_video(made, path: Path, true: np.ndarray, predicted: np.ndarray, fps: float | None = 25.0) -> Path:
    mapping = read_mapping(made.dataset.mapping)
    score = VideoScore(true, predicted, mapping.num_classes, fps=fps)
    (written,) = save(ribbon_plot({"v": score_ribbons({"predicted": score})}, mapping, "title"), path)
    return written


def test_ribbons_show_each_phase_in_its_colour_by_its_time(tmp_path, made):
    colours = phase_colours(read_mapping(made.dataset.mapping))
    truth = np.repeat([0, 1, 2], [10, 30, 60])
    path = ribbons_of_one_video(made, tmp_path / "r.png", truth, truth)
    shares = np.array([share_of(path, colours[phase]) for phase in range(3)])
    assert shares / shares.sum() == pytest.approx([0.1, 0.3, 0.6], abs=0.06)  # the legend adds a little of each
    assert share_of(path, colours[3]) == 0


def test_a_black_line_marks_wrong_stretches(tmp_path, made):
    truth = np.repeat([0, 1], 50)
    shares = []
    for predicted in (truth, np.repeat([0, 1], [80, 20])):
        path = ribbons_of_one_video(made, tmp_path / "r.png", truth, predicted)
        shares.append(share_of(path, "#000000"))
    assert shares[1] > shares[0] + 0.001


def test_ribbons_are_in_frames_where_a_frame_rate_is_unknown(tmp_path, made):
    truth = np.array([0, 1, 1, 2])
    known, unknown = (ribbons_of_one_video(made, tmp_path / f"{fps}.png", truth, truth, fps) for fps in (10.0, None))
    assert known.read_bytes() != unknown.read_bytes()


@pytest.mark.slow
def test_large_ribbons_of_some_videos_from_the_worst_to_the_best_or_of_all(report, monkeypatch):
    monkeypatch.setattr("common.reports.chart_data.NUM_SHOWN", 2)
    folder = paths.comparison_results() / "ribbons"
    for every in (True, False):  # what is not drawn again would be of an earlier report
        written = write_comparison(report, over_folds=False, all_ribbons=every)
        assert written[-1] == folder
        found = {path.stem for path in folder.iterdir()}
        assert found == (set(report.results[0].scores) if every else set(worst_to_best(report, 2)))
    chosen = worst_to_best(report, 3)
    means = [report.results[0].video_values(CHALLENGE)[name]["accuracy"] for name in chosen]
    assert len(chosen) == 3
    assert means == sorted(means)


def test_the_confusion_matrix_shows_shares_of_the_true_phase(report, tmp_path):
    result = report.results[0]
    (path,) = save(charts.confusion_plot(result, report), tmp_path / "c.png")
    assert pixels(path).std() > 5
