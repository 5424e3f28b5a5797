"""Frames by time: equal to those of sequential decoding, whatever the container, the codec and the order of reading."""

import pickle
import struct
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from common.base.runtime import UserError
from common.video.decode import decode
from common.video.probe import VideoError
from common.video.seek import span_of
from pretrain.video_data.clips import ClipReader

NUM_FRAMES = 60
GROUP = "keyint=20:min-keyint=20:scenecut=0:bframes=3"
OPEN_GROUP = f"{GROUP}:open-gop=1"


def moving_frames(num_frames: int = NUM_FRAMES) -> list[np.ndarray]:
    """Texture that moves, with the frame's number written in black and white fields."""
    texture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = [np.roll(texture, (index, 2 * index), axis=(0, 1)) for index in range(num_frames)]
    for index, frame in enumerate(frames):
        for bit in range(8):
            frame[16:24, 8 * bit : 8 * bit + 8] = 255 * (index >> bit & 1)
    return frames


def write(path, codec="libx264", *, x264="", fps=25, start=0.0, seconds=None, group=None, scale=1, container=None):
    """A made video; `x264` are that encoder's settings, `group` the keyframe distance of others.

    `scale` enlarges the pictures: a program stream stamps frames only that fill a packet.
    """
    with av.open(str(path), "w", options=container or {}) as made:
        stream = made.add_stream(codec, rate=fps)
        stream.codec_context.bit_rate = 3_000_000
        stream.width, stream.height, stream.pix_fmt = (
            64 * scale,
            48 * scale,
            "yuvj420p" if codec == "mjpeg" else "yuv420p",
        )
        # MPEG-4 and older codecs, and AVI, count frames
        stream.codec_context.time_base = unit = Fraction(1, 90_000) if codec.startswith("libx26") else Fraction(1, fps)
        stream.codec_context.thread_count = 1
        if codec == "libx264":
            stream.options = {"x264-params": x264 or GROUP}
        if codec == "libx265":
            stream.options = {"x265-params": f"{OPEN_GROUP}:log-level=none", "preset": "ultrafast"}
        if group:
            stream.codec_context.gop_size = group
            stream.codec_context.max_b_frames = 2 * (codec in ("mpeg2video", "mpeg4"))
        for index, picture in enumerate(moving_frames()):
            picture = picture.repeat(scale, 0).repeat(scale, 1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
            frame.time_base = unit
            frame.pts = round((start + (index / fps if seconds is None else seconds[index])) / unit)
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return path


def irregular(seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).choice([0.01, 0.04, 0.5, 1.7], NUM_FRAMES, p=[0.3, 0.5, 0.15, 0.05])
    return np.cumsum(steps)


def with_edit_list(path):
    """The same MP4 with its first half second cut off by the edit list, as trimming without encoding does."""
    content = bytearray(path.read_bytes())
    units = struct.unpack(">I", content[(at := content.index(b"mdhd") + 16) : at + 4])[0]
    place = content.index(b"elst") + 12
    duration, start, rate = struct.unpack(">IiI", content[place : place + 12])
    content[place : place + 12] = struct.pack(">IiI", duration - 500, start + units // 2, rate)
    path.write_bytes(content)
    return path


def without_index(path):
    """The same Matroska file without its Cues, as a live recording."""
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\x1c\x53\xbb\x6b")])
    return path


VIDEOS = {
    "closed groups": lambda folder: write(folder / "a.mp4"),
    "open groups": lambda folder: write(folder / "a.mp4", x264=OPEN_GROUP),
    "open groups, Matroska": lambda folder: write(folder / "a.mkv", x264=OPEN_GROUP),
    "open groups, MPEG-TS": lambda folder: write(folder / "a.ts", x264=OPEN_GROUP),
    "HEVC, open groups": lambda folder: write(folder / "a.mp4", "libx265"),
    "no keyframe but the first": lambda folder: write(folder / "a.mp4", x264="keyint=infinite:bframes=3"),
    "intra refresh": lambda folder: write(folder / "a.mp4", x264="keyint=20:bframes=0:intra-refresh=1"),
    "every frame a keyframe": lambda folder: write(folder / "a.mp4", x264="keyint=1"),
    "late start": lambda folder: write(folder / "a.mp4", start=7.3),
    "late start, Matroska": lambda folder: write(folder / "a.mkv", start=7.3),
    "variable rate": lambda folder: write(folder / "a.mp4", seconds=irregular()),
    "variable rate, Matroska": lambda folder: write(folder / "a.mkv", seconds=irregular(1)),
    "edit list": lambda folder: with_edit_list(write(folder / "a.mp4")),
    "fragments": lambda folder: write(folder / "a.mp4", container={"movflags": "frag_keyframe+empty_moov"}),
    "Matroska without index": lambda folder: without_index(write(folder / "a.mkv")),
    "interlaced": lambda folder: write(folder / "a.ts", x264=f"{GROUP}:tff=1"),
    "MPEG-2 program stream": lambda folder: write(folder / "a.mpg", "mpeg2video", group=12, scale=5),
    "MPEG-2 transport stream": lambda folder: write(folder / "a.ts", "mpeg2video", group=12),
    "MPEG-4 in AVI": lambda folder: write(folder / "a.avi", "mpeg4", group=12),
    "Motion JPEG in AVI": lambda folder: write(folder / "a.avi", "mjpeg"),
    "Windows Media": lambda folder: write(folder / "a.wmv", "wmv2", group=12),
    "VP9": lambda folder: write(folder / "a.webm", "libvpx-vp9", group=12),
    "no container": lambda folder: write(folder / "a.h264"),
}


def check_against_sequential(path, num_clips: int, open_videos: int = 1) -> None:
    """Clips of several lengths and rates, in and beyond the video, against the frames that decoding in order gives."""
    frames = list(decode(path))
    times = np.array([frame.seconds for frame in frames])
    random = np.random.default_rng(0)
    reader = ClipReader(open_videos)
    for number in range(num_clips):
        start = random.uniform(times[0] - 0.3, times[-1] + 0.3)
        wanted = start + np.arange(random.integers(1, 9)) / random.choice([2, 4, 10, 60])
        wanted = random.choice(times, 3) if number % 4 == 0 else wanted  # exact times, in any order
        clip = reader.read(path, wanted)
        assert clip.shape == (len(wanted), *frames[0].image.shape)
        assert clip.dtype == np.uint8
        for image, second in zip(clip, wanted, strict=True):
            distances = np.abs(times - second)
            nearest = np.flatnonzero(distances <= distances.min() + 1e-9)[0]  # the earlier of two
            assert np.array_equal(image, frames[nearest].image), f"at {second}: not frame {nearest}"


@pytest.mark.parametrize("make", VIDEOS.values(), ids=VIDEOS.keys())
def test_clips_equal_sequential_decoding(tmp_path, make):
    check_against_sequential(make(tmp_path), num_clips=24)


@pytest.mark.parametrize(
    "name", ["tc_av1.mkv", "tc_bt709_full_range.mp4", "tc_h265.mp4", "tree.avi", "vi_v_GGSY1Qvo990.mp4"]
)
def test_clips_of_real_videos_equal_sequential_decoding(reference_data, name):
    check_against_sequential(reference_data / "data" / "videos" / name, num_clips=8)


def test_the_frames_of_the_made_videos_differ():
    """What keeps the tests above honest."""
    assert len({frame.tobytes() for frame in moving_frames()}) == NUM_FRAMES


def test_of_two_equally_near_frames_the_earlier(make_clip, tmp_path):
    frames = [np.full((48, 64, 3), 50 * index, np.uint8) for index in range(5)]
    path = make_clip(tmp_path / "clip.mp4", frames, fps=10)
    levels = ClipReader().read(path, np.array([0.05, 0.051, 0.15, 0.2])).mean((1, 2, 3)) / 50
    assert levels.round().tolist() == [0, 1, 1, 2]


def test_times_outside_repeat_the_first_and_the_last_frame(make_clip, tmp_path):
    frames = [np.full((48, 64, 3), 50 * index, np.uint8) for index in range(5)]
    path = make_clip(tmp_path / "clip.mp4", frames, fps=10)
    levels = ClipReader().read(path, np.array([-3, 0.3, 0.4, 0.5, 99, 1e6])).mean((1, 2, 3)) / 50
    assert levels.round().tolist() == [0, 3, 4, 4, 4, 4]


def test_a_reader_keeps_the_videos_used_last(make_clip, solid, tmp_path):
    first, second, third = (make_clip(tmp_path / f"{name}.mp4", solid((9, 9, 9), 3)) for name in "abc")
    reader = ClipReader(open_videos=2)
    for path in (first, second, first, third):
        reader.read(path, np.zeros(1))
    assert list(reader._videos) == [first, third]
    reader.close()
    assert not reader._videos


def test_an_open_video_is_not_opened_again(make_clip, solid, tmp_path, monkeypatch):
    path = make_clip(tmp_path / "clip.mp4", solid((9, 9, 9), 60), options={"g": "10"})
    reader = ClipReader()
    reader.read(path, np.array([0.0]))
    monkeypatch.setattr(av, "open", None)
    reader.read(path, np.array([1.0, 2.0]))


def test_a_pickled_reader_opens_videos_of_its_own(make_clip, solid, tmp_path):
    path = make_clip(tmp_path / "clip.mp4", solid((9, 9, 9), 3))
    reader = ClipReader(3)
    expected = reader.read(path, np.zeros(1))
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.open_videos == 3
    assert not copy._videos
    assert np.array_equal(copy.read(path, np.zeros(1)), expected)


FORK = """
import os, sys
import numpy as np
from pretrain.video_data.clips import ClipReader

def agrees(second):
    return np.array_equal(reader.read(path, np.array([second])), ClipReader().read(path, np.array([second])))

path, reader = sys.argv[1], ClipReader()
reader.read(path, np.array([1.0]))
child = os.fork()
if not child:  # the parent's file position must not move
    os._exit(0 if all(map(agrees, (2.0, 0.1, 1.5))) else 1)
sys.exit(0 if all(map(agrees, (0.5, 2.2, 1.1))) and os.waitpid(child, 0)[1] == 0 else 1)
"""


def test_a_forked_process_reads_with_decoders_of_its_own(tmp_path):
    """In a process of its own: a fork of one with threads, as pytest's, can copy a lock that nobody will open."""
    words = [sys.executable, "-c", FORK, str(write(tmp_path / "a.mp4"))]
    assert subprocess.run(words, timeout=120).returncode == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: path.write_text("not a video\n" * 99),
    ],
    ids=["absent", "empty", "cut", "text"],
)
def test_what_cannot_be_read_is_an_error_that_names_it(tmp_path, damage):
    path = write(tmp_path / "BL_0001.mp4")
    damage(path)
    reader = ClipReader()
    for _ in range(2):  # a failure leaves nothing behind
        with pytest.raises(VideoError, match=r"BL_0001\.mp4: cannot be decoded") as error:
            reader.read(path, np.array([1.0]))
        assert isinstance(error.value, UserError)
        assert not reader._videos


def test_a_reader_must_be_able_to_open_a_video():
    with pytest.raises(ValueError, match="open_videos"):
        ClipReader(0)


@pytest.mark.parametrize("name", ["late start", "variable rate", "edit list", "open groups, MPEG-TS", "no container"])
def test_span_is_from_the_first_to_the_last_decoded_frame(tmp_path, name):
    path = VIDEOS[name](tmp_path)
    times = [frame.seconds for frame in decode(path)]
    assert span_of(path) == pytest.approx((times[0], times[-1]), abs=1e-9)


def test_a_format_that_cannot_be_searched_is_named_with_what_to_do(tmp_path, caplog):
    span_of(VIDEOS["closed groups"](tmp_path))
    assert not caplog.text
    span_of(VIDEOS["MPEG-2 program stream"](tmp_path))
    assert "a.mpg: this kind of file cannot be searched by time" in caplog.text


def test_span_does_not_believe_the_header(reference_data):
    path = reference_data / "data" / "videos" / "tree.avi"  # promises 444 frames, 68 decode
    times = [frame.seconds for frame in decode(path)]
    assert span_of(path) == pytest.approx((times[0], times[-1]))


def test_span_of_what_is_no_video_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_text("not a video")
    with pytest.raises(VideoError, match=r"a\.mp4"):
        span_of(tmp_path / "a.mp4")
