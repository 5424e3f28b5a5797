"""Decoding: colours against the formula, orientation, times, damaged files, real samples; then the other decoders.

Those are held against PyAV, the default: frames, times, colours, orientation, and what each says when it cannot.
"""

import builtins
import gc
import importlib.metadata
import pickle
import struct
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from common.base.runtime import UserError
from common.video import decode as decode_module
from common.video.decode import DECODERS, Frame, decode, decoder_version
from common.video.probe import PACKETS_LOOKED_AT, VideoError, probe
from tests.common import odd_videos

BT709, BT601 = 1, 6  # matrix coefficients of ITU-T H.273
LIMITED, FULL = 1, 2
LUMA_WEIGHTS = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114)}  # red and blue
# FFmpeg's default scaler, which torchcodec and the ffmpeg command use too, cuts fractions off: up to 2.2 levels low.
# A wrong matrix or range is off by 8 and more (tested below).
SCALER_LEVELS = 2.2
COLOURS = [
    (0, 0, 0),
    (255, 255, 255),
    (128, 128, 128),
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (200, 60, 90),
    (15, 120, 230),
    (250, 240, 20),
]
OTHERS = [name for name in DECODERS if name != "pyav"]
MODULES = {"pyav": "av", "opencv": "cv2", "decord": "decord", "torchcodec": "torchcodec"}


def stored_values(colour, matrix: int, color_range: int) -> list[int]:
    """Y', Cb, Cr of an RGB colour by ITU-T H.273's formulas, rounded to 8 bits; nothing of FFmpeg's."""
    kr, kb = LUMA_WEIGHTS[matrix]
    red, green, blue = (value / 255 for value in colour)
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - y) / (2 * (1 - kb)), (red - y) / (2 * (1 - kr))
    luma, chroma, black = (255, 255, 0) if color_range == FULL else (219, 224, 16)
    return [min(255, max(0, round(value))) for value in (black + luma * y, 128 + chroma * cb, 128 + chroma * cr)]


def shown_colour(stored: list[int], matrix: int, color_range: int) -> np.ndarray:
    """The RGB colour, in levels but not rounded, that stored 8-bit values mean."""
    kr, kb = LUMA_WEIGHTS[matrix]
    luma, chroma, black = (255, 255, 0) if color_range == FULL else (219, 224, 16)
    y, cb, cr = (stored[0] - black) / luma, (stored[1] - 128) / chroma, (stored[2] - 128) / chroma
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return np.clip(255 * np.array([red, green, blue]), 0, 255)


def yuv_frame(stored: list[int], size=(48, 64)) -> av.VideoFrame:
    """A solid frame of stored values."""
    frame = av.VideoFrame(size[1], size[0], "yuv420p")
    for plane, value in zip(frame.planes, stored, strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    return frame


def images(path) -> list[np.ndarray]:
    return [frame.image for frame in decode(path)]


def seconds(path) -> list[float]:
    return [frame.seconds for frame in decode(path)]


def noise(num_frames: int, size=(48, 64)) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(num_frames)]


# --- colour -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [BT601, BT709], ids=["BT.601", "BT.709"])
@pytest.mark.parametrize("colour", COLOURS, ids=str)
@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])  # H.264's full range has a pixel format of its own
def test_colour_is_right_under_every_tag(make_clip, tmp_path, colour, matrix, color_range, codec):
    stored = stored_values(colour, matrix, color_range)
    frames = [yuv_frame(stored)] * 3
    path = make_clip(tmp_path / "clip.mkv", frames, matrix=matrix, color_range=color_range, codec=codec)
    shown = shown_colour(stored, matrix, color_range)
    for image in images(path):
        assert np.abs(image - shown).max() <= SCALER_LEVELS
        assert np.ptp(image, axis=(0, 1)).max() == 0


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [BT601, BT709], ids=["BT.601", "BT.709"])
@pytest.mark.parametrize("level", [0, 1, 64, 128, 200, 255])
def test_grey_is_right_within_a_level_under_every_tag(make_clip, tmp_path, level, matrix, color_range):
    stored = stored_values((level,) * 3, matrix, color_range)
    image = images(make_clip(tmp_path / "clip.mp4", [yuv_frame(stored)], matrix=matrix, color_range=color_range))[0]
    assert np.abs(image.astype(int) - level).max() <= 1


@pytest.mark.parametrize("colour", COLOURS, ids=str)
def test_untagged_video_counts_as_bt601_limited(make_clip, tmp_path, colour):
    stored = stored_values(colour, BT601, LIMITED)
    image = images(make_clip(tmp_path / "clip.mp4", [yuv_frame(stored)]))[0]
    assert np.abs(image - shown_colour(stored, BT601, LIMITED)).max() <= SCALER_LEVELS


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [BT601, BT709], ids=["BT.601", "BT.709"])
def test_wrong_tags_would_be_seen(make_clip, tmp_path, matrix, color_range):
    """What keeps the tests above honest: read under any other tag, one of the colours is far off."""
    for other in ((m, r) for m in (BT601, BT709) for r in (LIMITED, FULL) if (m, r) != (matrix, color_range)):
        errors = []
        for number, colour in enumerate(COLOURS):
            path = tmp_path / f"{number}{other[0]}{other[1]}.mp4"
            stored = stored_values(colour, *other)
            image = images(make_clip(path, [yuv_frame(stored)], matrix=matrix, color_range=color_range))[0]
            errors.append(np.abs(image.astype(int) - colour).max())
        assert max(errors) >= 8


def test_frames_equal_ffmpegs_own_conversion(make_clip, tmp_path):
    """PyAV from 17 on converts as FFmpeg and torchcodec do."""
    path = make_clip(tmp_path / "clip.mp4", noise(3), matrix=BT709, color_range=FULL)
    with av.open(str(path)) as container:
        theirs = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert all(np.array_equal(a, b) for a, b in zip(images(path), theirs, strict=True))


def test_image_is_rgb_uint8_with_height_first(make_clip, solid, tmp_path):
    image = images(make_clip(tmp_path / "clip.mp4", solid((10, 20, 30), 1, size=(48, 80))))[0]
    assert image.shape == (48, 80, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


# --- orientation --------------------------------------------------------------------------------------------------


def set_rotation(path, degrees: int) -> None:
    """Write a display matrix that turns the picture by `degrees` counter-clockwise into the track header."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of the header
    a, b = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[degrees]
    content[place : place + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def corner_frame() -> np.ndarray:
    """Black but for a white block in the top left corner."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:16, :16] = 255
    return frame


@pytest.mark.parametrize(
    ("degrees", "shape", "corner"),
    [
        (90, (64, 48), (slice(-16, None), slice(0, 16))),
        (180, (48, 64), (slice(-16, None), slice(-16, None))),
        (270, (64, 48), (slice(0, 16), slice(-16, None))),
    ],
)
def test_rotated_video_comes_upright(make_clip, tmp_path, degrees, shape, corner):
    path = make_clip(tmp_path / "clip.mp4", [corner_frame()] * 2)
    set_rotation(path, degrees)
    for image in images(path):
        assert image.shape == (*shape, 3)
        assert image.flags.c_contiguous
        assert image[corner].min() > 200
        rest = image.copy()
        rest[corner] = 0
        assert rest.max() < 60


def test_unrotated_video_stays(make_clip, tmp_path):
    image = images(make_clip(tmp_path / "clip.mp4", [corner_frame()]))[0]
    assert image[:16, :16].min() > 200


# --- frames and times ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [25, 30_000 / 1001, 60])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_constant_rate_gives_every_frame_at_its_time(make_clip, tmp_path, fps, container):
    path = make_clip(tmp_path / f"clip.{container}", noise(30), fps=fps)
    assert seconds(path) == pytest.approx([i / fps for i in range(30)], abs=1e-3)


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_variable_rate_gives_one_frame_a_decoded_frame_at_its_time(make_clip, tmp_path, container):
    times = np.cumsum([0, 0.04, 0.04, 0.5, 0.02, 0.04, 1.7, 0.033, 0.033, 0.2])
    frames = [np.full((48, 64, 3), 25 * index, np.uint8) for index in range(10)]
    decoded = list(decode(make_clip(tmp_path / f"clip.{container}", frames, seconds=times)))
    assert [frame.seconds for frame in decoded] == pytest.approx(times.tolist(), abs=1e-3)
    assert [frame.image.mean() for frame in decoded] == pytest.approx([25 * index for index in range(10)], abs=2)


def test_frames_stored_out_of_order_come_in_order_of_presentation(make_clip, tmp_path):
    frames = [np.full((48, 64, 3), 8 * index, np.uint8) for index in range(30)]
    options = {"preset": "slow", "bf": "3", "b-adapt": "0", "qp": "10"}
    path = make_clip(tmp_path / "clip.mp4", frames, options=options)
    with av.open(str(path)) as container:
        stored = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    assert stored != sorted(stored)
    decoded = list(decode(path))
    assert [frame.seconds for frame in decoded] == pytest.approx([i / 25 for i in range(30)], abs=1e-3)
    assert np.diff([frame.image.mean() for frame in decoded]).min() > 0


def still_then_moving() -> Iterator[np.ndarray]:
    """A grainy still picture, in which an encoder stores no frame out of order, and then motion, in which it does."""
    grain = np.random.default_rng(0)
    for _ in range(100):
        yield (64 + grain.integers(-15, 16, (96, 128, 1))).repeat(3, axis=2).astype(np.uint8)
    y, x = np.mgrid[:96, :128]
    for index in range(80):
        yield np.stack([2 * x + 3 * index, 2 * y + index, np.full_like(x, 2 * index)], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def still_opening(make_clip, tmp_path_factory) -> Path:
    """A video that begins with more frames in the order of decoding than are looked at."""
    path = tmp_path_factory.mktemp("still") / "source.mp4"
    return make_clip(path, still_then_moving(), options={"preset": "medium"})


@pytest.mark.parametrize("times", ["of presentation", "of decoding"])
@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "ts"])
def test_a_still_opening_does_not_hide_what_the_times_of_a_file_are(still_opening, tmp_path, container, times):
    """Its first frames fall in the same order whether their times are those of presentation or, in a copied AVI, of decoding."""
    with av.open(str(still_opening)) as opened:
        stored = [packet.pts for packet in opened.demux(video=0) if packet.pts is not None]
    assert stored[:PACKETS_LOOKED_AT] == sorted(stored[:PACKETS_LOOKED_AT])
    assert stored != sorted(stored)
    change = odd_videos.timed_in_order_of_decoding if times == "of decoding" else None
    path = odd_videos.rewrap(still_opening, tmp_path / f"clip.{container}", *filter(None, [change]))
    assert probe(path).has_presentation_times == (times == "of presentation")
    seconds = [frame.seconds for frame in decode(path)]
    assert np.subtract(seconds, seconds[0]) == pytest.approx(np.arange(180) / 25, abs=2e-3)


def test_a_copied_avi_that_went_through_matroska_is_known_in_mp4(make_clip, tmp_path):
    """Matroska keeps no times of decoding: those that are made up make its copy look as if it had both."""
    frames = [np.full((48, 64, 3), 8 * index, np.uint8) for index in range(30)]
    options = {"preset": "slow", "bf": "3", "b-adapt": "0", "qp": "10"}
    source = make_clip(tmp_path / "source.mp4", frames, options=options)
    copied = odd_videos.rewrap(source, tmp_path / "copied.mkv", odd_videos.timed_in_order_of_decoding)
    path = tmp_path / "again.mp4"
    with av.open(str(copied)) as given, av.open(str(path), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        packets = [packet for packet in given.demux(video=0) if packet.size]
        delay = next(packet.pts - packet.dts for packet in packets if packet.dts is not None)
        for packet in packets:
            packet.dts = packet.pts - delay
            packet.stream = stream
            made.mux(packet)
    assert delay > 0
    assert not probe(path).has_presentation_times
    decoded = list(decode(path))
    assert np.diff([frame.seconds for frame in decoded]) == pytest.approx(1 / 25, abs=2e-3)
    assert np.diff([frame.image.mean() for frame in decoded]).min() > 0


def test_a_file_behind_another_is_no_frame_out_of_order(still_opening, tmp_path):
    part = odd_videos.rewrap(still_opening, tmp_path / "part.ts", odd_videos.timed_in_order_of_decoding)
    assert not probe(odd_videos.joined(part, part, tmp_path / "both.ts")).has_presentation_times


def test_no_more_is_read_of_a_video_without_motion_than_minutes(make_clip, solid, tmp_path, monkeypatch):
    path = make_clip(
        tmp_path / "clip.mkv", solid((9, 9, 9), 300), options={"preset": "medium", "bf": "2", "b-adapt": "1"}
    )
    with av.open(str(path)) as container:
        stored = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    monkeypatch.setattr("common.video.probe.PACKETS_READ_ON", 50)
    assert probe(path).has_presentation_times
    assert len(stored) == 300


def test_decoding_twice_gives_the_same_frames(make_clip, tmp_path):
    path = make_clip(tmp_path / "clip.mp4", noise(12))
    assert all(np.array_equal(a, b) for a, b in zip(images(path), images(path), strict=True))


def test_pictures_go_as_soon_as_nobody_has_them(make_clip, solid, tmp_path):
    """One that waits for the garbage collector keeps its pixels and the threads of its conversion: hundreds in a long run."""
    path = make_clip(tmp_path / "clip.mp4", solid((200, 60, 90), 8))
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in decode(path)) == 8
        assert [each for each in gc.get_objects() if isinstance(each, av.VideoFrame)] == []
    finally:
        gc.enable()


def test_making_a_clip_twice_gives_the_same_bytes(make_clip, tmp_path):
    first, second = (make_clip(tmp_path / name, noise(12)).read_bytes() for name in ("a.mp4", "b.mp4"))
    assert first == second


# --- what cannot be read ------------------------------------------------------------------------------------------


def with_index_first(source, target):
    """The same mp4 with its index at the front, as recordings meant for streaming have it."""
    with av.open(str(source)) as given, av.open(str(target), "w", options={"movflags": "faststart"}) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return target


def cut(path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_truncated_video_without_its_index_is_an_error_that_names_it(make_clip, tmp_path, share):
    path = make_clip(tmp_path / "BL_0001.mp4", noise(30))
    cut(path, share)
    with pytest.raises(VideoError, match=r"BL_0001\.mp4: cannot be decoded after 0 frames"):
        images(path)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_truncated_video_with_its_index_is_an_error_after_the_frames_it_gives(make_clip, tmp_path, share):
    path = with_index_first(make_clip(tmp_path / "whole.mp4", noise(30)), tmp_path / "BL_0001.mp4")
    assert len(images(path)) == 30
    cut(path, share)
    given = []
    with pytest.raises(VideoError, match=r"BL_0001\.mp4: .*ends in the middle of a frame") as error:
        given += decode(path)
    assert 0 < error.value.frames_given < 30


def test_video_whose_frames_are_all_cut_off_is_an_error(make_clip, tmp_path):
    """The header is whole, and the demuxer just ends."""
    path = make_clip(tmp_path / "BL_0001.mkv", noise(5))
    content = path.read_bytes()
    first_cluster = content.index(b"\x1f\x43\xb6\x75")
    path.write_bytes(content[: first_cluster + 100])  # in the middle of the first frame
    assert probe(path).codec == "h264"
    with pytest.raises(VideoError, match=r"BL_0001\.mkv: .*no frame decodes"):
        images(path)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
def test_truncated_matroska_is_an_error_after_the_frames_it_gives(make_clip, tmp_path, codec, share):
    """Its demuxer ends without a word."""
    path = make_clip(tmp_path / "BL_0001.mkv", noise(30), codec=codec, options={})
    assert len(images(path)) == 30
    cut(path, share)
    given = []
    with pytest.raises(VideoError, match=r"BL_0001\.mkv: .*cut off: its header promises [\d,]+ bytes more") as error:
        given.extend(frame for frame in decode(path))
    assert 0 < error.value.frames_given < 30


def test_matroska_that_lacks_only_its_index_gives_all_frames_and_a_warning(make_clip, tmp_path, caplog):
    path = make_clip(tmp_path / "BL_0001.mkv", noise(30))
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b"\x1c\x53\xbb\x6b")])  # Cues
    assert len(images(path)) == 30
    assert "BL_0001.mkv" in caplog.text
    assert "all frames are there" in caplog.text


def test_header_that_promises_a_longer_time_refuses_nothing(make_clip, tmp_path):
    path = make_clip(tmp_path / "clip.mkv", noise(30))
    content = path.read_bytes()
    place = content.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes
    path.write_bytes(content[:place] + struct.pack(">d", 60_000.0) + content[place + 8 :])
    assert probe(path).seconds == 60
    assert len(images(path)) == 30


def test_header_that_promises_more_frames_refuses_nothing(tmp_path):
    path = make_avi(tmp_path / "clip.avi")
    content = path.read_bytes()
    place = content.index(b"strh") + 8 + 32  # dwLength
    path.write_bytes(content[:place] + struct.pack("<I", 444) + content[place + 4 :])
    assert probe(path).header_frames == 444
    assert len(images(path)) == 30


def make_avi(path):
    """30 frames of Motion JPEG."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for index, picture in enumerate(noise(30)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def audio_only(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000)),
        lambda path: path.write_text("this is not a video\n" * 50),
        lambda path: None,
        audio_only,
    ],
    ids=["empty", "random bytes", "text", "absent", "audio only"],
)
@pytest.mark.parametrize("read", [lambda path: list(decode(path)), probe], ids=["decode", "probe"])
def test_what_is_not_a_video_is_an_error_that_names_the_file(tmp_path, damage, read):
    path = tmp_path / "BL_0001.mp4"
    damage(path)
    with pytest.raises(VideoError, match=r"BL_0001\.mp4") as error:
        read(path)
    assert isinstance(error.value, UserError)
    assert error.value.path == path
    assert error.value.frames_given == 0


# --- real samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "num_frames"),
    [
        ("tree.avi", 68),  # its header says 444
        ("tc_av1.mkv", 125),
        ("vi_v_GGSY1Qvo990.mp4", 355),
        ("tc_h265.mp4", 10),
        ("tc_bt709_full_range.mp4", 30),
    ],
)
def test_real_sample_gives_every_frame_that_decodes(reference_data, name, num_frames):
    path = reference_data / "data" / "videos" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    times = seconds(path)
    assert len(times) == num_frames
    assert (np.diff(times) > 0).all()


@pytest.fixture(scope="session")
def working(tmp_path_factory, make_clip, solid):
    """The decoders that run on this machine."""
    path = make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", solid((9, 9, 9), 2))
    found = set()
    for name in DECODERS:
        try:
            list(decode(path, name))
            found.add(name)
        except VideoError:
            raise
        except UserError:  # not installed, or without FFmpeg
            continue
    return found


@pytest.fixture(params=OTHERS)
def other(request, working) -> str:
    if request.param not in working:
        pytest.skip(f"{request.param} does not run here")
    return request.param


def frames(path, decoder) -> list[Frame]:
    return list(decode(path, decoder))


def seconds_of(given: list[Frame]) -> list[float]:
    return [frame.seconds for frame in given]


def test_the_default_and_opencv_run_wherever_the_requirements_are_installed(working):
    assert {"pyav", "opencv"} <= working


# --- the other decoders: the same video, the same frames -----------------------------------------------------------


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_frames_and_times_equal_those_of_pyav(make_clip, tmp_path, other, container):
    path = make_clip(tmp_path / f"clip.{container}", noise(30), fps=30_000 / 1001)
    expected, given = frames(path, "pyav"), frames(path, other)
    assert len(given) == 30
    assert seconds_of(given) == pytest.approx(seconds_of(expected), abs=1e-3)
    for ours, theirs in zip(expected, given, strict=True):
        assert theirs.image.dtype == np.uint8
        assert theirs.image.flags.c_contiguous
        assert np.abs(ours.image.astype(int) - theirs.image).max() <= 2


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_variable_rate_is_that_of_pyav(make_clip, tmp_path, other, container):
    times = np.cumsum([0, 0.04, 0.04, 0.5, 0.02, 0.04, 1.7, 0.033, 0.033, 0.2])
    pictures = [np.full((48, 64, 3), 25 * index, np.uint8) for index in range(10)]
    given = frames(make_clip(tmp_path / f"clip.{container}", pictures, seconds=times), other)
    assert seconds_of(given) == pytest.approx(times.tolist(), abs=1e-3)
    assert [frame.image.mean() for frame in given] == pytest.approx([25 * index for index in range(10)], abs=2)


def test_order_of_presentation_is_that_of_pyav(make_clip, tmp_path, other):
    pictures = [np.full((48, 64, 3), 8 * index, np.uint8) for index in range(30)]
    path = make_clip(tmp_path / "clip.mp4", pictures, options={"preset": "slow", "bf": "3", "b-adapt": "0", "qp": "10"})
    given = frames(path, other)
    assert seconds_of(given) == pytest.approx([index / 25 for index in range(30)], abs=1e-3)
    assert np.diff([frame.image.mean() for frame in given]).min() > 0


@pytest.mark.parametrize("color_range", [LIMITED, FULL], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [None, BT601, BT709], ids=["untagged", "BT.601", "BT.709"])
def test_colour_tags_are_honoured(make_clip, solid, tmp_path, other, matrix, color_range):
    if other == "opencv" and matrix == BT709 and opencv_major() < 5:
        pytest.skip("OpenCV before 5 ignores the colour matrix, as its function says")
    for index, colour in enumerate([(200, 60, 90), (15, 120, 230), (250, 240, 20)]):
        tags = {"matrix": matrix, "color_range": color_range} if matrix else {}
        image = frames(make_clip(tmp_path / f"{index}.mp4", solid(colour, 3), **tags), other)[1].image
        assert np.abs(image.astype(int) - colour).max() <= 4


def opencv_major() -> int:
    import cv2

    return int(cv2.__version__.partition(".")[0])


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("size", [(48, 64), (50, 50), (96, 128)], ids=str)
def test_rotation_is_that_of_pyav_or_refused(make_clip, tmp_path, other, degrees, size):
    picture = np.pad(corner_frame()[:48, :50], ((0, size[0] - 48), (0, size[1] - 50), (0, 0)))
    path = make_clip(tmp_path / "clip.mp4", [picture] * 3)
    set_rotation(path, degrees)
    if other == "decord" and size == (48, 64) and degrees != 180:
        with pytest.raises(VideoError, match=r"rotated picture.*--decoder pyav"):
            frames(path, other)
        return
    given = frames(path, other)
    assert len(given) == 3
    for ours, theirs in zip(frames(path, "pyav"), given, strict=True):
        assert np.abs(ours.image.astype(int) - theirs.image).max() <= 2


REAL_SAMPLES = {  # name: frames by decoder, from the traps that were found by trying
    "tree.avi": {"opencv": 68, "decord": 68, "torchcodec": 68},
    "vi_v_GGSY1Qvo990.mp4": {"opencv": 355, "decord": 355, "torchcodec": 355},
    "tc_h265.mp4": {"opencv": 10, "decord": 10, "torchcodec": 10},
    "tc_bt709_full_range.mp4": {"opencv": 30, "decord": 30, "torchcodec": 30},
    "tc_av1.mkv": {"torchcodec": 125},
}


@pytest.mark.parametrize("name", REAL_SAMPLES)
def test_real_samples(reference_data, other, name):
    path = reference_data / "data" / "videos" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    if other not in REAL_SAMPLES[name]:
        with pytest.raises(VideoError, match=r"after 0 frames.*--decoder pyav"):
            frames(path, other)
        return
    given = frames(path, other)
    assert len(given) == REAL_SAMPLES[name][other]
    assert seconds_of(given) == pytest.approx(seconds_of(frames(path, "pyav")), abs=2e-3)


@pytest.mark.parametrize("name", ["tc_bt709_full_range.mp4", "vi_v_GGSY1Qvo990.mp4", "tc_av1.mkv"])
def test_torchcodec_and_pyav_convert_colours_alike(reference_data, working, name):
    if "torchcodec" not in working:
        pytest.skip("torchcodec does not run here")
    path = reference_data / "data" / "videos" / name
    for ours, theirs in zip(frames(path, "pyav"), frames(path, "torchcodec"), strict=True):
        assert np.abs(ours.image.astype(int) - theirs.image).max() <= 1


# --- the other decoders: what cannot be read -----------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"this is not a video\n" * 50, np.random.default_rng(0).bytes(20_000)])
def test_what_is_not_a_video_is_an_error_that_names_the_file_with_every_decoder(tmp_path, other, content):
    path = tmp_path / "BL_0001.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"BL_0001\.mp4") as error:
        frames(path, other)
    assert error.value.frames_given == 0


@pytest.mark.parametrize("container", ["mkv", "avi"])
def test_a_file_that_is_cut_off_is_an_error_with_every_decoder(make_clip, tmp_path, other, container):
    whole = make_avi(tmp_path / "BL_1.avi") if container == "avi" else make_clip(tmp_path / "BL_1.mkv", noise(30))
    assert len(frames(whole, other)) == 30
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    given = []
    with pytest.raises(VideoError, match=r"BL_1") as error:
        given.extend(frame for frame in decode(whole, other))
    assert 0 < error.value.frames_given < 30


def test_an_error_crosses_processes_whole(tmp_path):
    error = VideoError(tmp_path / "BL_1.mp4", "no such codec", 7, advice="use --decoder pyav")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert (again.path, again.reason, again.frames_given) == (error.path, "no such codec", 7)


# --- the other decoders: what is not installed ---------------------------------------------------------------------


@pytest.fixture
def without(monkeypatch):
    """`without(package)`: neither importable nor known to the installer."""

    def remove(decoder: str) -> None:
        real_import, real_version = builtins.__import__, importlib.metadata.version

        def import_(name, *rest):
            if name.partition(".")[0] == MODULES[decoder]:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return real_import(name, *rest)

        def version(name):
            if name in decode_module.PACKAGES[decoder]:
                raise importlib.metadata.PackageNotFoundError(name)
            return real_version(name)

        monkeypatch.setattr(decode_module.importlib, "import_module", import_)
        monkeypatch.setattr(decode_module.importlib.metadata, "version", version)

    return remove


@pytest.mark.parametrize(
    ("name", "package"), [("opencv", "opencv-python-headless"), ("decord", "decord"), ("torchcodec", "torchcodec")]
)
def test_a_decoder_that_is_not_installed_says_what_to_install(tmp_path, without, name, package):
    without(name)
    for ask in (lambda: frames(tmp_path / "clip.mp4", name), lambda: decoder_version(name)):
        with pytest.raises(UserError, match=f"--decoder {name}: not installed.*pip install {package}") as error:
            ask()
        assert not isinstance(error.value, VideoError)  # it is not the video's fault


def test_torchcodec_without_ffmpeg_names_the_libraries(make_clip, solid, tmp_path, monkeypatch):
    library, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")

    def load(*_, **__):
        raise RuntimeError("Could not load libtorchcodec. Likely causes: ...")

    decoders.VideoDecoder, library.decoders = load, decoders
    path = make_clip(tmp_path / "clip.mp4", solid((9, 9, 9), 2))
    monkeypatch.setitem(sys.modules, "torchcodec", library)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    with pytest.raises(UserError, match=r"FFmpeg's shared libraries.*--decoder pyav") as error:
        frames(path, "torchcodec")
    assert not isinstance(error.value, VideoError)


def test_an_unknown_decoder_is_an_error_that_lists_the_known(tmp_path):
    with pytest.raises(UserError, match="pyav, opencv, decord, torchcodec"):
        frames(tmp_path / "clip.mp4", "vlc")


def test_decoder_version_names_the_package(working):
    assert decoder_version("pyav") == f"av {av.__version__}"
    for name in working:
        package, version = decoder_version(name).split()
        assert MODULES[name] in package or name in package
        assert version[0].isdecimal()


@pytest.mark.parametrize("name", ["cv2", "decord", "torchcodec", "torch", "av"])
def test_importing_the_module_loads_no_decoder(name):
    code = f"import common.video.decode, sys; sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
