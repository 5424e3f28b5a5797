"""One recording in four containers, whole and as tools and joints leave it: the same features, or a refusal by name.

The frames are those of the MP4 that everything was rewritten from without encoding. `pytest -rP` prints the table.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from common.video.decode import DECODERS
from tests.common import odd_videos
from tests.common.features.extracting import Extracted, extract_all, times_and_indices

CONTAINERS = ("mp4", "mkv", "avi", "ts")
REAL, REAL_FRAMES = "vi_v_GGSY1Qvo990.mp4", 180  # of it three groups of pictures are taken, without B-frames
B_FRAMES = {"x264-params": "keyint=50:min-keyint=50:scenecut=0:bframes=3:b-adapt=0", "crf": "20"}
PACKET = 188  # bytes of a transport stream's packet


# --- the rewritings -------------------------------------------------------------------------------------------------


def whole(source: Path, target: Path) -> Path:
    """The same packets."""
    return odd_videos.rewrap(source, target)


def without_times(source: Path, target: Path) -> Path:
    """A transport stream without any; elsewhere, times of decoding stand in place of those of presentation."""
    if target.suffix != ".ts":
        return odd_videos.rewrap(source, target, odd_videos.timed_in_order_of_decoding)

    def clear(header: memoryview) -> None:
        header[7] &= 0x3F

    return _with_headers(whole(source, target), clear)


def with_equal_times(source: Path, target: Path) -> Path:
    """Every frame is shown at the time of the first."""
    if target.suffix == ".mp4":
        return odd_videos.without_durations(whole(source, target))
    if target.suffix == ".mkv":
        return odd_videos.rewrap(source, target, _at_zero)
    first: list[bytes] = []

    def repeat(header: memoryview) -> None:
        header[7] = header[7] & 0x3F | 0x80  # only a time of presentation
        first.append(bytes([header[9] & 0x2F, *header[10:14]]))
        header[9:14] = first[0]

    return _with_headers(whole(source, target), repeat)


def joined_twice(source: Path, target: Path) -> Path:
    """Twice the same file, one behind the other."""
    part = whole(source, target.with_stem(f"{target.stem}_part"))
    return odd_videos.joined(part, part, target)


def trimmed(source: Path, target: Path) -> Path:
    """From `START` on; an MP4 hides what lies between a keyframe and that, the others begin with the keyframe."""
    with av.open(str(source)) as given:
        packets = [packet for packet in given.demux(video=0) if packet.size]
    start = sorted(packet.pts for packet in packets)[_start(len(packets))]
    first = max(index for index, packet in enumerate(packets) if packet.is_keyframe and packet.pts <= start)

    def shift(index: int, packet: av.Packet) -> None:
        packet.pts -= start
        packet.dts -= start

    return odd_videos.rewrap(source, target, shift, first=first)


def _start(num_frames: int) -> int:
    return num_frames * 2 // 5


def _at_zero(index: int, packet: av.Packet) -> None:
    packet.pts = packet.dts = 0


def _with_headers(path: Path, change: Callable[[memoryview], None]) -> Path:
    """A transport stream with the header of each of its pictures changed (ISO/IEC 13818-1, 2.4.3.6)."""
    content = memoryview(bytearray(path.read_bytes()))
    for header in _picture_headers(content):
        change(header)
    path.write_bytes(content)
    return path


def _picture_headers(content: memoryview) -> Iterator[memoryview]:
    for begin in range(0, len(content), PACKET):
        packet = content[begin : begin + PACKET]
        payload = packet[5 + packet[4] :] if packet[3] & 0x20 else packet[4:]
        if packet[1] & 0x40 and bytes(payload[:3]) == b"\0\0\1" and payload[3] & 0xF0 == 0xE0:
            yield payload


# --- what is right --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rewriting:
    """A way to write a recording again; `frames(n, container)`: those of its `n` frames that are right then."""

    write: Callable[[Path, Path], Path]
    frames: Callable[[int, list[int], str], list[int]] = lambda count, keys, container: list(range(count))
    containers: tuple[str, ...] = CONTAINERS


def _from_start(count: int, keys: list[int], container: str) -> list[int]:
    start = _start(count)
    return list(range(start if container == "mp4" else max(key for key in keys if key <= start), count))


REWRITINGS = {
    "whole": Rewriting(whole),
    # AVI has no place for a time: whole, it is without them
    "without times": Rewriting(without_times, containers=("mp4", "mkv", "ts")),
    "equal times": Rewriting(with_equal_times, containers=("mp4", "mkv", "ts")),
    "joined twice": Rewriting(joined_twice, lambda count, keys, container: [*range(count), *range(count)]),
    "trimmed": Rewriting(trimmed, _from_start),
}
KINDS = [(way, container) for way, rewriting in REWRITINGS.items() for container in rewriting.containers]
# what PyAV, which reads all the rest, refuses: of two MP4 files in one, only the first would be read
REFUSED_BY_PYAV = {("joined twice", "mp4")}


@dataclass(frozen=True)
class Recording:
    """The MP4 that is rewritten, and every rewriting of it."""

    original: Path
    num_frames: int
    fps: float
    keyframes: list[int]
    paths: dict[tuple[str, str], Path]


def original(folder: Path, source: Path | None, *, b_frames: bool) -> Path:
    """A real recording or a made one as an MP4 without sound, with B-frames or without."""
    path = folder / "original.mp4"
    if source is None:
        return odd_videos.write(path, options=None if b_frames else odd_videos.NO_B)
    if not b_frames:
        return odd_videos.rewrap(source, path, last=REAL_FRAMES)
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        read = given.streams.video[0]
        stream = made.add_stream("libx264", rate=read.average_rate, options=B_FRAMES)
        stream.width, stream.height, stream.pix_fmt = read.width, read.height, "yuv420p"
        stream.codec_context.time_base = 1 / read.average_rate
        for index, frame in enumerate(islice(given.decode(read), REAL_FRAMES)):
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.time_base = index, stream.codec_context.time_base
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return path


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("made", False), id="made"),
        pytest.param(("made", True), id="made with B-frames"),
        pytest.param(("real", False), id="real", marks=pytest.mark.slow),
        pytest.param(("real", True), id="real with B-frames", marks=pytest.mark.slow),
    ],
)
def recording(request, tmp_path_factory) -> Recording:
    """A recording and its rewritings."""
    (content, b_frames), folder = request.param, tmp_path_factory.mktemp("recording")
    source = request.getfixturevalue("reference_data") / "data" / "videos" / REAL if content == "real" else None
    if source and not source.is_file():
        pytest.skip(f"no {source}")
    path = original(folder, source, b_frames=b_frames)
    rewritten = {}
    for way, container in KINDS:
        target = folder / f"{way.replace(' ', '_')}_in_{container}.{container}"
        rewritten[way, container] = REWRITINGS[way].write(path, target)
    with av.open(str(path)) as opened:
        packets = [packet for packet in opened.demux(video=0) if packet.size]
        fps = float(opened.streams.video[0].average_rate)
    shown = sorted(packet.pts for packet in packets)
    keyframes = [shown.index(packet.pts) for packet in packets if packet.is_keyframe]
    return Recording(path, len(shown), fps, keyframes, rewritten)


@pytest.fixture(scope="module", params=DECODERS)
def extracted(request, recording, tmp_path_factory) -> tuple[str, Extracted]:
    """A recording and all its rewritings, extracted together with one decoder."""
    package = {"pyav": "av", "opencv": "cv2"}.get(request.param, request.param)
    pytest.importorskip(package)
    videos = {path.stem: path for path in (recording.original, *recording.paths.values())}
    return request.param, extract_all(tmp_path_factory.mktemp("root"), videos, decoder=request.param)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "container"), KINDS)
def test_a_rewritten_recording_has_the_features_of_the_original_or_is_refused(
    request, recording, extracted, way, container
):
    decoder, made = extracted
    content, b_frames = request.node.callspec.params["recording"]
    name = recording.paths[way, container].stem
    expected = REWRITINGS[way].frames(recording.num_frames, recording.keyframes, container)
    row = f"| {content}{' with B-frames' if b_frames else ''} | {way} | {container} | {decoder} |"
    if name in made.summary.failed:
        note = made.note(name)
        print(f"{row} {note['frames_given']} | refused: {note['reason']} |")
        assert f"{name}.{container}" in made.summary.failed[name]
        assert decoder != "pyav" or (way, container) in REFUSED_BY_PYAV
        return
    assert decoder != "pyav" or (way, container) not in REFUSED_BY_PYAV
    original, rewritten = made.features("original"), made.features(name)
    is_same = (rewritten.array == original.array[:, expected]).all(axis=0)
    seconds, sampled = times_and_indices(rewritten)
    print(f"{row} {len(seconds)} | {is_same.sum()} of {len(expected)} equal |")
    assert sampled == list(range(len(expected)))
    assert is_same.all()
    assert np.diff(seconds) == pytest.approx(np.full(len(expected) - 1, 1 / recording.fps), abs=3e-3)
