"""The table of segments against hand-computed rows, and what the picture shows."""

import csv
import itertools

import matplotlib.image
import numpy as np
import pytest
from PIL import ImageColor

from common.dataset.phases import PhaseMapping
from common.head.new_videos import VideoPhases
from common.reports.pictures import timeline
from common.reports.pictures.style import phase_colours
from common.reports.pictures.timeline import segment_rows, timeline_plot, write_segments

MAPPING = PhaseMapping(("background", "wash", "suture_knot"))


@pytest.fixture
def phases():
    """Five frames at uneven times: wash for two, suture for two (the first of them in doubt), background for one."""
    probabilities = [[0.1, 0.7, 0.2], [0.0, 0.9, 0.1], [0.35, 0.2, 0.45], [0.15, 0.1, 0.75], [0.6, 0.3, 0.1]]
    return VideoPhases(
        "case.mp4", np.array([0.5, 1.0, 2.0, 5.0, 6.0]), np.array(probabilities, dtype=np.float32), MAPPING,
        source="Histogram features", remarks=("head trained on synthetic data",),
    )  # fmt: skip


def long_case(confidence, num_frames=1000):
    """A quarter wash, the rest suture, 10 frames a second, with the same confidence throughout."""
    probabilities = np.full((num_frames, 3), (1 - confidence) / 2)
    probabilities[: num_frames // 4, 1] = confidence
    probabilities[num_frames // 4 :, 2] = confidence
    return VideoPhases("long.mp4", np.arange(num_frames) / 10, probabilities, MAPPING)


def test_rows_are_the_hand_computed_segments(phases):
    rows = [list(row.values()) for row in segment_rows(phases)]
    # gaps 0.5, 1, 3, 1: the last frame lasts their median, 1 second
    assert rows == [
        ["wash", 0, 2, "0.500", "2.000", "1.500", "0.8000", "0.7000", "suture_knot"],
        ["suture_knot", 2, 4, "2.000", "6.000", "4.000", "0.6000", "0.4500", "background"],
        ["background", 4, 5, "6.000", "7.000", "1.000", "0.6000", "0.6000", "wash"],
    ]


def test_the_file_has_the_columns_and_the_same_rows(phases, tmp_path):
    write_segments(tmp_path / "case.csv", phases)
    with (tmp_path / "case.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == [
        "phase",
        "start_frame",
        "end_frame",
        "start_seconds",
        "end_seconds",
        "duration_seconds",
        "confidence",
        "lowest_confidence",
        "runner_up",
    ]
    assert [{key: str(value) for key, value in row.items()} for row in segment_rows(phases)] == rows
    assert [path.name for path in tmp_path.iterdir()] == ["case.csv"]


def test_a_phase_name_with_a_comma_stays_one_value(tmp_path):
    phases = VideoPhases("v", np.array([0.0]), np.array([[1.0, 0.0]]), PhaseMapping(("wash,warm", "rest")))
    write_segments(tmp_path / "v.csv", phases)
    with (tmp_path / "v.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["phase"] == "wash,warm"


def test_segments_follow_each_other_without_gaps(phases):
    rows = segment_rows(phases)
    for row, following in itertools.pairwise(rows):
        assert row["end_frame"] == following["start_frame"]
        assert row["end_seconds"] == following["start_seconds"]


def test_a_mapping_of_one_phase_has_no_runner_up_and_a_single_frame_no_duration():
    phases = VideoPhases("v", np.array([0.0]), np.array([[1.0]]), PhaseMapping(("wash",)))
    (row,) = segment_rows(phases)
    assert (row["runner_up"], row["duration_seconds"], row["confidence"]) == ("", "0.000", "1.0000")


def shares_of_the_ribbon(path):
    """The share of each phase's own colour in a row of pixels through the middle of the ribbon."""
    picture = matplotlib.image.imread(path)[..., :3]
    colours = [np.array(ImageColor.getrgb(colour)) / 255 for colour in phase_colours(MAPPING)]
    alike = np.stack([(np.abs(picture - colour) < 0.02).all(axis=2) for colour in colours])
    wash = alike[1].sum(axis=1)
    rows = np.flatnonzero(wash == wash.max())
    row = alike[:, rows[len(rows) // 2]].sum(axis=1)
    return row / row.sum(), row.sum()


def test_the_ribbon_has_the_phases_colours_in_proportion_to_their_time(tmp_path):
    shares, width = shares_of_the_ribbon(timeline_plot(long_case(0.9), tmp_path / "long.png"))
    assert shares == pytest.approx([0, 0.25, 0.75], abs=0.005)
    assert width > 1000


def test_a_doubtful_ribbon_is_hatched_over_its_whole_length(tmp_path):
    _, width = shares_of_the_ribbon(timeline_plot(long_case(0.4), tmp_path / "long.png"))
    assert width < 100  # the legend's patch only


@pytest.fixture
def drawn(monkeypatch):
    """Draws a picture and returns the matplotlib figure before it becomes pixels."""

    def draw(phases):
        figures = []
        monkeypatch.setattr(timeline, "save", lambda figure, path: figures.append(figure) or path)
        timeline_plot(phases, "unused.png")
        return figures[0]

    return draw


def texts_of(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_heading_names_the_video_the_source_and_the_remarks(drawn, phases):
    assert set(texts_of(drawn(phases))) == {"case.mp4", "Histogram features", "head trained on synthetic data"}


def test_the_legend_lists_the_phases_shown_in_order_with_their_time(drawn, phases):
    labels = [text.get_text() for text in drawn(phases).legends[0].get_texts()]
    assert labels == ["wash  1.5 s", "suture knot  4.0 s", "background  1.0 s", "doubtful: confidence below 50%"]
    labels = [text.get_text() for text in drawn(long_case(0.9)).legends[0].get_texts()]
    assert labels == ["wash  0:25", "suture knot  1:15"]


def test_the_confidence_line_holds_each_frame_until_the_next(drawn, phases):
    line = drawn(phases).axes[1].lines[0]
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == [0.5, 1, 2, 5, 6, 7]
    assert line.get_ydata() == pytest.approx([0.7, 0.9, 0.45, 0.75, 0.6, 0.6])


@pytest.mark.parametrize("seconds", [0.3, 7, 95, 1000, 8000, 30000])
def test_the_axis_has_a_readable_number_of_ticks(drawn, seconds):
    axes = drawn(VideoPhases("v", np.linspace(0, seconds, 50), np.full((50, 3), 1 / 3), MAPPING)).axes[1]
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= seconds]
    assert 1 <= len(ticks) <= 15


def test_a_single_frame_is_drawn(tmp_path):
    assert timeline_plot(
        VideoPhases("v", np.array([0.0]), np.array([[1.0, 0, 0]]), MAPPING), tmp_path / "v.png"
    ).is_file()
