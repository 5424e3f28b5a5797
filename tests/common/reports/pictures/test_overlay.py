"""The video with its phases written in: same frames, same times, and nothing changed but the bar."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import ImageColor

from common.base.runtime import UserError
from common.dataset.phases import PhaseMapping
from common.head.new_videos import VideoPhases
from common.reports.pictures import overlay
from common.reports.pictures.overlay import PhaseBar, write_overlay
from common.reports.pictures.style import phase_colours
from common.video.decode import decode
from common.video.probe import VideoError
from common.video.timeline import Frame
from tests.common import odd_videos
from tests.common.odd_videos import ODD, number_of

MAPPING = PhaseMapping(("background", "wash", "suture"))
UNEVEN = np.cumsum([0, 0.04, 0.04, 0.2, 0.033, 0.04, 0.5, 0.04, 0.04, 0.04, 0.1, 0.04])
COLOURS = [ImageColor.getrgb(colour) for colour in phase_colours(MAPPING)]


def phases_at(seconds, phase_ids=None, confidence=0.8, **more):
    """The first half wash, the rest suture, unless `phase_ids` say otherwise."""
    if phase_ids is None:
        phase_ids = np.where(np.arange(len(seconds)) < len(seconds) / 2, 1, 2)
    probabilities = np.full((len(seconds), 3), (1 - confidence) / 2)
    probabilities[np.arange(len(seconds)), phase_ids] = confidence
    return VideoPhases("clip.mp4", np.asarray(seconds), probabilities, MAPPING, **more)


def smooth(num_frames, size=(144, 256)):
    """Frames that a lossy codec keeps well: a grey slope that grows brighter."""
    slope = np.linspace(60, 160, size[1])[None, :, None].repeat(size[0], 0).repeat(3, 2)
    return [(slope + 3 * index).astype(np.uint8) for index in range(num_frames)]


def pictures(path):
    return np.stack([frame.image for frame in decode(path)]).astype(int)


def times(path):
    return [frame.seconds for frame in decode(path)]


@pytest.fixture
def clip(make_clip, tmp_path):
    return make_clip(tmp_path / "clip.mp4", smooth(len(UNEVEN)), seconds=UNEVEN)


@pytest.mark.parametrize("start", [0.0, 1.4])
def test_frames_and_timestamps_of_a_variable_rate_are_kept(make_clip, tmp_path, start):
    clip = make_clip(tmp_path / "clip.mkv", smooth(len(UNEVEN)), seconds=start + UNEVEN)
    write_overlay(clip, phases_at(times(clip)), tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4") == pytest.approx(times(clip), abs=1e-5)
    assert times(clip) == pytest.approx(start + UNEVEN, abs=1e-3)  # the container rounds to milliseconds


def test_only_the_bar_differs_from_the_input(clip, tmp_path):
    phases = phases_at(UNEVEN)
    write_overlay(clip, phases, tmp_path / "out.mp4")
    before, after = pictures(clip), pictures(tmp_path / "out.mp4")
    top = PhaseBar(phases, 256, 144).top
    assert 100 < top < 140
    above = top // 16 * 16 - 8  # a lossy codec smears the edge of the bar over its blocks
    assert before.shape == after.shape
    assert np.abs(before - after)[:, :above].mean() < 1.5
    assert np.abs(before - after)[:, :above].max() < 16
    assert np.abs(before - after)[:, top:].mean() > 40


def test_it_is_h264_in_yuv420p_without_sound_and_says_its_colours(clip, tmp_path):
    write_overlay(clip, phases_at(UNEVEN), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.width, context.height) == ("h264", "yuv420p", 256, 144)
        assert (context.colorspace, context.color_range) == (1, 1)  # BT.709, limited (ITU-T H.273)


@pytest.mark.parametrize("tags", [{}, {"matrix": 1, "color_range": 2}, {"matrix": 6, "color_range": 1}])
def test_colours_are_those_of_the_input(make_clip, solid, tmp_path, tags):
    clip = make_clip(tmp_path / "clip.mp4", solid((200, 60, 30), 4, (96, 128)), **tags)
    write_overlay(clip, phases_at(np.arange(4) / 25), tmp_path / "out.mp4")
    assert pictures(tmp_path / "out.mp4")[:, 20, 64] == pytest.approx(np.tile([200, 60, 30], (4, 1)), abs=5)


def test_the_strip_shows_the_phases_over_time_and_the_place_moves(clip, tmp_path):
    seconds = np.arange(10.0)
    bar = PhaseBar(phases_at(seconds), 200, 100)
    first, last = np.zeros((2, 100, 200, 3), dtype=np.uint8)
    bar.draw(first, 0)
    bar.draw(last, 9)
    assert first[-1, 50].tolist() == list(COLOURS[1])
    assert first[-1, 150].tolist() == list(COLOURS[2])
    places = [np.flatnonzero((image[-1] == 255).all(axis=1)).mean() for image in (first, last)]
    assert places == pytest.approx([0.5, 0.9 * 200], abs=1.5)


def test_the_strip_follows_time_and_not_frames():
    """Nine frames of wash in the first second, one of suture for the rest."""
    seconds = np.array([*np.linspace(0, 1, 9), 5.0])
    strip = PhaseBar(phases_at(seconds, np.array([1] * 9 + [2])), 100, 100).strip[0]
    wash = (strip == COLOURS[1]).all(axis=1)
    assert wash.mean() == pytest.approx(5.0 / 5.125, abs=0.02)  # the ninth frame is shown until second 5


def test_doubtful_stretches_of_the_strip_have_dark_stripes():
    sure, doubtful = (PhaseBar(phases_at(np.arange(10.0), confidence=share), 200, 100).strip for share in (0.6, 0.4))
    assert {tuple(pixel) for pixel in sure.reshape(-1, 3).tolist()} == {COLOURS[1], COLOURS[2]}
    assert {tuple(pixel) for pixel in doubtful.reshape(-1, 3).tolist()} > {COLOURS[1], COLOURS[2]}


@pytest.fixture
def written(monkeypatch):
    """The words that a bar of 640 x 360 writes on one frame."""

    def words(phases, index, size=(640, 360)):
        drawn = []
        text = overlay.ImageDraw.ImageDraw.text
        with monkeypatch.context() as patch:
            patch.setattr(
                overlay.ImageDraw.ImageDraw, "text", lambda *args, **more: (drawn.append(args[2]), text(*args, **more))
            )
            PhaseBar(phases, *size).draw(np.zeros((size[1], size[0], 3), dtype=np.uint8), index)
        return drawn

    return words


def test_name_confidence_and_time_are_written(written):
    phases = phases_at(np.arange(100.0))
    assert written(phases, 0) == ["wash", "80%", "0:00 / 1:40"]
    assert written(phases, 75) == ["suture", "80%", "1:15 / 1:40"]


def test_a_doubtful_frame_names_the_second_choice(written):
    phases = VideoPhases("v", np.array([0.0, 1.0]), np.array([[0.1, 0.45, 0.44], [0.1, 0.5, 0.4]]), MAPPING)
    assert written(phases, 0) == ["wash", "45%", "0:00 / 0:02", "or suture 44%"]
    assert written(phases, 1) == ["wash", "50%", "0:01 / 0:02"]


def test_remarks_are_written_on_every_frame(written):
    phases = phases_at(np.arange(3.0), remarks=("head trained on synthetic data", "random encoder weights"))
    assert all(
        "head trained on synthetic data · random encoder weights" in written(phases, index) for index in range(3)
    )


def test_underscores_are_shown_as_blanks(written):
    phases = VideoPhases("v", np.array([0.0]), np.array([[1.0]]), PhaseMapping(("nucleus_delivery",)))
    assert written(phases, 0)[0] == "nucleus delivery"


@pytest.mark.parametrize("size", [(16, 16), (64, 48), (48, 640), (1920, 1080)])
def test_every_size_of_picture_gets_a_bar(size, written):
    phases = phases_at(np.arange(10.0), confidence=0.4, remarks=("head trained on synthetic data",))
    assert "wash" in written(phases, 0, size)


def test_a_narrow_picture_leaves_out_the_time_before_it_writes_over_the_phase(written):
    assert written(phases_at(np.arange(10.0)), 0, (64, 48)) == ["wash", "80%"]


def test_odd_sides_lose_their_last_row_and_column(tmp_path):
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 65, 49, "bgr0"
        for image in smooth(3, (49, 65)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    write_overlay(tmp_path / "odd.mkv", phases_at(np.arange(3) / 25), tmp_path / "out.mp4")
    assert pictures(tmp_path / "out.mp4").shape == (3, 48, 64, 3)


def test_pixels_that_are_not_square_stay_so(tmp_path):
    with av.open(str(tmp_path / "wide.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        for image in smooth(3, (48, 64)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    write_overlay(tmp_path / "wide.mp4", phases_at(np.arange(3) / 25), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)


def test_a_picture_that_changes_its_size_is_fitted_to_the_first(clip, tmp_path, monkeypatch):
    frames = list(decode(clip))
    frames[3:] = [Frame(frame.image[:20, :30], frame.seconds) for frame in frames[3:]]
    monkeypatch.setattr(overlay, "Decoding", lambda *_, **__: (frame for frame in frames))
    write_overlay(clip, phases_at(UNEVEN), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        sizes = {(frame.height, frame.width) for frame in container.decode(video=0)}
    assert sizes == {frames[0].image.shape[:2]}
    assert len(times(tmp_path / "out.mp4")) == len(UNEVEN)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
def test_every_frame_of_any_kind_of_video_is_in_its_overlay(tmp_path, kind):
    """By the number that it shows in its upper half, which the bar leaves free."""
    video = ODD[kind].make(tmp_path)
    seconds = [frame.seconds for frame in decode(video)]
    path = write_overlay(video, phases_at(np.array(seconds)), tmp_path / "overlay.mp4")
    shown = list(decode(path))
    assert tuple(number_of(frame.image) for frame in shown) == ODD[kind].numbers
    assert [frame.seconds for frame in shown] == pytest.approx(seconds, abs=2e-3)


def test_a_mirrored_picture_is_mirrored_in_its_overlay(tmp_path):
    video = odd_videos.mirrored(odd_videos.write(tmp_path / "plain.mp4"), tmp_path / "mirrored.mp4")
    seconds = np.arange(odd_videos.NUM_FRAMES) / odd_videos.FPS
    path = write_overlay(video, phases_at(seconds), tmp_path / "overlay.mp4")
    assert [number_of(picture[:, ::-1]) for picture in pictures(path)] == [*range(odd_videos.NUM_FRAMES)]


@pytest.mark.parametrize("num_frames", [len(UNEVEN) - 1, len(UNEVEN) + 1])
def test_phases_of_another_video_are_refused_and_nothing_is_left(clip, tmp_path, num_frames):
    with pytest.raises(UserError, match=rf"clip\.mp4: decodes to 12 frames, but its phases are of {num_frames}"):
        write_overlay(clip, phases_at(np.arange(num_frames)), tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_video_that_ends_early_is_named_and_nothing_is_left(clip, tmp_path, monkeypatch):
    def breaking(path, decoder, *, accept_damaged):
        yield from list(decode(path, decoder))[:5]
        raise VideoError(path, "damaged", 5)

    monkeypatch.setattr(overlay, "Decoding", breaking)
    with pytest.raises(VideoError, match=r"clip\.mp4: cannot be decoded after 5 frames"):
        write_overlay(clip, phases_at(UNEVEN), tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_failing_encoder_is_a_message_with_the_folder(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(overlay, "ENCODER_OPTIONS", {"preset": "no such preset"})
    with pytest.raises(UserError, match=f"{tmp_path}: the overlay cannot be written"):
        write_overlay(clip, phases_at(UNEVEN), tmp_path / "out.mp4")
