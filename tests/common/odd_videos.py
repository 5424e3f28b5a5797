"""Made videos of the kinds that recorders, joints, copies and trims leave: numbered frames, and what is right for each."""

import functools
import itertools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from PIL import Image

NUM_FRAMES, FPS = 60, 25
SIZE = (96, 160)
B_FRAMES = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0"
PRESET = "veryfast"  # with B-frames of B-frames, as the usual one, in half of its time


@functools.cache
def numbered(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture whose upper half shows a number from 0 to 255 in eight black and white blocks, the highest bit first.

    Below is noise, so that a frame is some thousand bytes, of which damage hits a few.
    """
    picture = np.random.default_rng(number).integers(60, 120, (*size, 3), dtype=np.uint8)
    for bit in range(8):
        left, right = (size[1] * side // 8 for side in (bit, bit + 1))
        picture[: size[0] // 2, left:right] = 235 if number >> (7 - bit) & 1 else 16
    picture.flags.writeable = False  # the next who asks is given the same
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number that `numbered` wrote, at any size."""
    height, width = picture.shape[:2]
    blocks = [picture[height // 8 : 3 * height // 8, width * (2 * bit + 1) // 16] for bit in range(8)]
    return sum(int(block.mean() > 125) << (7 - bit) for bit, block in enumerate(blocks))


def write(path: Path, numbers=range(NUM_FRAMES), *, size=SIZE, **settings) -> Path:
    """A video of `numbered` frames; see `write_pictures`."""
    return write_pictures(path, (numbered(number, size) for number in numbers), **settings)


def write_pictures(
    path: Path, pictures: Iterable[np.ndarray], *, codec="libx264", options=None, seconds=None, container=None
) -> Path:
    """A video of pictures `(H, W, 3)` of one size; with B-frames unless `options` say otherwise."""
    counts_frames = codec != "libx264" or path.suffix == ".avi"
    unit = Fraction(1, FPS if counts_frames else 90_000)
    pictures = iter(pictures)
    first = next(pictures)
    with av.open(str(path), "w", options=container or {}) as made:
        stream = made.add_stream(codec, rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *first.shape[:2], "yuv420p"
        stream.options = {"x264-params": B_FRAMES, "qp": "8", "preset": PRESET} if options is None else options
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = unit
        if codec in ("mpeg4", "mpeg2video"):
            stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
            stream.codec_context.bit_rate = 4_000_000
        for index, picture in enumerate(itertools.chain([first], pictures)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.time_base = unit
            frame.pts = round((index / FPS if seconds is None else seconds[index]) / unit)
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return path


def rewrap(
    source: Path,
    target: Path,
    change: Callable[[int, av.Packet], None] = lambda index, packet: None,
    *,
    first: int = 0,
    last: int | None = None,
    packets_a_frame: int = 1,
) -> Path:
    """The same packets from the `first` to before the `last` in another container, each after `change(index, packet)`."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        read = given.streams.video[0]
        stream = made.add_stream_from_template(read)
        packets = [packet for packet in given.demux(read) if packet.size]
        if target.suffix == ".avi":  # counts frames: at a finer clock empty ones would lie between them
            stream.time_base = 1 / (packets_a_frame * read.average_rate)
            start_codes = BitStreamFilterContext("h264_mp4toannexb", read)
            packets = [changed for packet in packets for changed in start_codes.filter(packet)]
        for index, packet in enumerate(packets[first:last]):
            change(index, packet)
            packet.stream = stream
            made.mux(packet)
    return target


def timed_in_order_of_decoding(index: int, packet: av.Packet) -> None:
    """As a tool leaves it that copies an AVI."""
    packet.dts += round(1 / packet.time_base)  # else MP4 would hide what begins before 0
    packet.pts = packet.dts


def joined(first: Path, second: Path, target: Path) -> Path:
    """Two transport streams one behind the other, as `cat` or a recorder's next part leaves them."""
    target.write_bytes(first.read_bytes() + second.read_bytes())
    return target


def without_durations(path: Path) -> Path:
    """The MP4 with zeros in its table of durations, and without its table of delays and the edit list against them."""
    content = bytearray(path.read_bytes())
    place = content.index(b"stts") + 8
    for entry in range(int.from_bytes(content[place : place + 4], "big")):
        content[place + 8 + 8 * entry : place + 12 + 8 * entry] = bytes(4)
    path.write_bytes(content.replace(b"ctts", b"free").replace(b"edts", b"free"))
    return path


def trimmed(source: Path, target: Path, seconds: float) -> Path:
    """An MP4 cut without encoding: what the first frame leans on is kept, and hidden by the edit list."""
    content = bytearray(source.read_bytes())
    units = struct.unpack(">I", content[(at := content.index(b"mdhd") + 16) : at + 4])[0]
    place = content.index(b"elst") + 12
    duration, start, rate = struct.unpack(">IiI", content[place : place + 12])
    moved = struct.pack(">IiI", duration - round(1000 * seconds), start + round(units * seconds), rate)
    content[place : place + 12] = moved
    target.write_bytes(content)
    return target


def overwritten(source: Path, target: Path, share: float = 0.5, length: int = 512) -> Path:
    """A file with zeros in the middle, as a bad sector leaves it: in a picture, whose bytes most of the file are."""
    content = bytearray(source.read_bytes())
    begin = int(len(content) * share)
    content[begin : begin + length] = bytes(length)
    target.write_bytes(content)
    return target


def mirrored(source: Path, target: Path) -> Path:
    """An MP4 whose display matrix mirrors left and right."""
    content = bytearray(source.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    content[place : place + 36] = struct.pack(">9i", -(1 << 16), 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


def with_picture_first(source: Path, target: Path) -> Path:
    """A file whose first stream is a single picture that nobody marked as a cover."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        cover = made.add_stream("mjpeg", rate=FPS)
        cover.height, cover.width, cover.pix_fmt = *SIZE, "yuvj420p"
        stream = made.add_stream_from_template(given.streams.video[0])
        frame = av.VideoFrame.from_ndarray(numbered(255), format="rgb24").reformat(format="yuvj420p")
        frame.pts, frame.time_base = 0, Fraction(1, FPS)
        made.mux([*cover.encode(frame), *cover.encode()])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    return target


def with_palette(path: Path, levels) -> Path:
    """A video of grey pictures, one a level, whose pixels are places in a table of colours."""
    table = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1)
    table[:, 0] = 255  # opaque
    with av.open(str(path), "w") as made:
        stream = made.add_stream("rawvideo", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "pal8"
        for index, level in enumerate(levels):
            frame = av.VideoFrame.from_ndarray((np.full(SIZE, level, np.uint8), table), format="pal8")
            frame.pts = index
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return path


def frame_folder(folder: Path, numbers=range(NUM_FRAMES), *, suffix: str = ".png", first: int = 1) -> Path:
    """A folder of numbered images."""
    folder.mkdir()
    for index, number in enumerate(numbers):
        Image.fromarray(numbered(number)).save(folder / f"{first + index:06d}{suffix}")
    return folder


@dataclass(frozen=True)
class Odd:
    """A kind of video: `make(folder)` writes one; every frame of `numbers` is to come, `1 / FPS` apart.

    `mended`: kinds of times that are mended, of which the record tells.
    """

    make: Callable[[Path], Path]
    numbers: tuple[int, ...] = tuple(range(NUM_FRAMES))
    mended: frozenset[str] = frozenset()


def _from_base(name: str, change: Callable[[Path, Path], Path], **settings) -> Callable[[Path], Path]:
    return lambda folder: change(write(folder / "base.mp4", **settings), folder / name)


def _join(folder: Path) -> Path:
    parts = [write(folder / f"{part}.ts", range(30 * part, 30 * part + 30)) for part in (0, 1)]
    return joined(*parts, folder / "odd.ts")


def _size_change(folder: Path, suffix: str = "ts", **settings) -> Path:
    first = write(folder / f"0.{suffix}", range(30), **settings)
    second = write(folder / f"1.{suffix}", range(30, 60), size=(72, 128), **settings)
    return joined(first, second, folder / f"odd.{suffix}")


def _jump(index: int) -> np.ndarray:
    """Times with a clock that is set from 1970 to 2026 at a frame."""
    times = np.arange(NUM_FRAMES) / FPS
    times[index:] += 86_400 * 365
    return times


def _at_zero(path: Path) -> Path:
    """A video whose writer never set a time."""
    return write(path, options=NO_B, seconds=np.zeros(NUM_FRAMES))


NO_B = {"x264-params": "keyint=12:bframes=0", "qp": "8"}
ODD = {
    "mp4": Odd(lambda folder: write(folder / "odd.mp4")),
    "mkv": Odd(lambda folder: write(folder / "odd.mkv")),
    "ts": Odd(lambda folder: write(folder / "odd.ts")),
    "mts": Odd(lambda folder: write(folder / "odd.ts").rename(folder / "odd.MTS")),
    "asf": Odd(lambda folder: write(folder / "odd.asf"), mended=frozenset({"repeated"})),
    "flv": Odd(lambda folder: write(folder / "odd.flv")),
    "avi without B-frames": Odd(lambda folder: write(folder / "odd.avi", options=NO_B)),
    "avi with B-frames": Odd(lambda folder: write(folder / "odd.avi")),
    "xvid avi": Odd(lambda folder: write(folder / "odd.avi", codec="mpeg4", options={})),
    "avi copied to mp4": Odd(_from_base("odd.mp4", lambda s, t: rewrap(s, t, timed_in_order_of_decoding))),
    "avi copied to mkv": Odd(_from_base("odd.mkv", lambda s, t: rewrap(s, t, timed_in_order_of_decoding))),
    "avi copied to ts": Odd(_from_base("odd.ts", lambda s, t: rewrap(s, t, timed_in_order_of_decoding))),
    "raw h264": Odd(lambda folder: write(folder / "odd.h264"), mended=frozenset({"missing"})),
    "fragments": Odd(lambda f: write(f / "odd.mp4", container={"movflags": "frag_keyframe+empty_moov"})),
    "joined ts": Odd(_join, mended=frozenset({"step back"})),
    "size change": Odd(_size_change, mended=frozenset({"step back"})),
    "size change in a program stream": Odd(
        lambda folder: _size_change(folder, "mpg", codec="mpeg2video", options={}),
        mended=frozenset({"step back", "missing"}),
    ),
    "size change in mpeg": Odd(
        lambda folder: _size_change(folder, "m2v", codec="mpeg2video", options={}), mended=frozenset({"missing"})
    ),
    "mp4 all at time 0": Odd(lambda folder: _at_zero(folder / "odd.mp4"), mended=frozenset({"repeated"})),
    "mkv all at time 0": Odd(lambda folder: _at_zero(folder / "odd.mkv"), mended=frozenset({"repeated"})),
    "ts all at time 0": Odd(lambda folder: _at_zero(folder / "odd.ts"), mended=frozenset({"repeated"})),
    "mp4 without durations": Odd(
        lambda folder: without_durations(write(folder / "odd.mp4", options=NO_B)), mended=frozenset({"missing"})
    ),
    "jump of the clock": Odd(
        lambda folder: write(folder / "odd.mkv", options=NO_B, seconds=_jump(20)), mended=frozenset({"absurd"})
    ),
    "trimmed": Odd(
        lambda folder: trimmed(write(folder / "base.mp4"), folder / "odd.mp4", 0.68), tuple(range(17, NUM_FRAMES))
    ),
    "picture first": Odd(_from_base("odd.mov", with_picture_first)),
    "images": Odd(lambda folder: frame_folder(folder / "odd")),
    "unpadded images from 0": Odd(lambda folder: _unpadded(folder / "odd")),
}


def _unpadded(folder: Path) -> Path:
    frame_folder(folder, suffix=".bmp", first=0)
    for path in list(folder.iterdir()):
        path.rename(path.with_stem(f"frame_{int(path.stem)}"))
    return folder


def two_streams(path: Path) -> Path:
    """A file with two videos: theatre recorders keep the microscope and the room."""
    sources = [
        write(path.with_name(f"{part}.mkv"), numbers) for part, numbers in enumerate((range(60), range(100, 160)))
    ]
    opened = [av.open(str(source)) for source in sources]
    with av.open(str(path), "w") as made:
        streams = [made.add_stream_from_template(given.streams.video[0]) for given in opened]
        for given, stream in zip(opened, streams, strict=True):
            for packet in given.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    made.mux(packet)
            given.close()
    return path


def tagged(matroska: bytes, matrix: int) -> bytes:
    """The file with its Colour element's matrix coefficients (ITU-T H.273) set."""
    place = matroska.index(b"\x55\xb1\x81") + 3  # MatrixCoefficients, one byte
    return matroska[:place] + bytes([matrix]) + matroska[place + 1 :]
