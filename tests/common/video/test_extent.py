"""Extent of files: what lies behind the first of two in one, and lengths that no file has."""

import struct

import pytest
from PIL import Image

from common.video.decode import Decoding
from common.video.extent import declared_bytes, is_followed_by_another
from common.video.probe import VideoError
from tests.common import odd_videos
from tests.common.odd_videos import NUM_FRAMES, number_of

NO_B = odd_videos.NO_B
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def two_in_one(folder, suffix, **settings):
    parts = [odd_videos.write(folder / f"{part}.{suffix}", **settings) for part in (1, 2)]
    return odd_videos.joined(*parts, folder / f"BL_1.{suffix}")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "flv", "asf"])
def test_a_second_file_that_nobody_reads_is_said_and_what_to_do(tmp_path, suffix):
    path = two_in_one(tmp_path, suffix, options=NO_B)
    with pytest.raises(VideoError, match=rf"BL_1\.{suffix}: .*second video lies behind the first.*ffmpeg -f concat"):
        list(Decoding(path))
    accepted = Decoding(path, accept_damaged=True)
    assert len(list(accepted)) == NUM_FRAMES
    assert "second video" in accepted.record.damage


@pytest.mark.parametrize("filler", [0, (1 << 20) + 10])
def test_a_second_nut_whose_beginning_is_read_twice_is_said(tmp_path, filler):
    """Wherever it begins: identifiers are looked for in blocks of 1 MiB."""
    first = odd_videos.write(tmp_path / "1.nut", options=NO_B)
    with first.open("ab") as file:
        file.write(bytes(max(0, filler - first.stat().st_size)))
    path = odd_videos.joined(first, odd_videos.write(tmp_path / "2.nut", options=NO_B), tmp_path / "BL_1.nut")
    with pytest.raises(VideoError, match=r"BL_1\.nut: .*second video lies behind the first.*ffmpeg -f concat"):
        list(Decoding(path))


@pytest.mark.parametrize("suffix", ["mkv", "avi", "h264", "ts"])
def test_what_is_read_to_the_end_of_both_files_is_whole(tmp_path, suffix):
    path = two_in_one(tmp_path, suffix, options=NO_B)
    assert not is_followed_by_another(path)
    assert [number_of(frame.image) for frame in Decoding(path)] == 2 * [*range(NUM_FRAMES)]


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [("mp4", {}), ("mp4", {"container": FRAGMENTS}), ("flv", {}), ("asf", {}), ("mkv", {}), ("nut", {})],
)
def test_one_file_is_followed_by_none(tmp_path, suffix, settings):
    assert not is_followed_by_another(odd_videos.write(tmp_path / f"one.{suffix}", **settings))


def test_a_box_longer_than_any_disk_is_a_promise_and_no_failure(tmp_path):
    path = odd_videos.write(tmp_path / "BL_1.mp4")
    content = path.read_bytes()
    path.write_bytes(content + struct.pack(">I4sQ", 1, b"free", 2**64 - 1))
    assert declared_bytes(path) == len(content) + 2**64 - 1
    assert not is_followed_by_another(path)
    assert [number_of(frame.image) for frame in Decoding(path)] == [*range(NUM_FRAMES)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_declared_size_is_that_of_a_whole_file(make_clip, tmp_path, suffix):
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    path = make_clip(
        tmp_path / f"clip.{suffix}",
        [odd_videos.numbered(number, (48, 64)) for number in range(5)],
        codec=codec,
        options={},
    )
    assert declared_bytes(path) == path.stat().st_size


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


EBML, SEGMENT = b"\x1a\x45\xdf\xa3\x83abc", b"\x18\x53\x80\x67"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", 0),
        (b"G" + bytes(187), 0),  # MPEG-TS
        (box(b"ftyp") + box(b"mdat", b"12345"), 21),
        (box(b"ftyp") + struct.pack(">I4sQ", 1, b"mdat", 1 << 33), 8 + (1 << 33)),  # 64 bits
        (box(b"ftyp") + b"\0\0\0\0mdat12345", 8),  # to the end of the file
        (box(b"ftyp") + box(b"mdat", b"12345") + b"camera's own junk", 21),
        (EBML + SEGMENT + b"\x84abcd", 8 + 4 + 1 + 4),
        (EBML + SEGMENT + b"\x01\0\0\0\0\0\x10\0", 8 + 4 + 8 + 4096),
        (EBML + SEGMENT + b"\xff", 0),  # unknown: a live recording
        (EBML + SEGMENT + b"\x01" + b"\xff" * 7, 0),
        (EBML + b"something else", 0),
        (EBML[:5], 0),
        (b"RIFF" + struct.pack("<I", 100) + b"AVI ", 108),
        (b"RIFF" + struct.pack("<I", 4) + b"AVI " + b"RIFF" + struct.pack("<I", 50) + b"AVIX", 12 + 58),  # OpenDML
        (b"RIFF" + struct.pack("<I", 0) + b"AVI ", 0),  # never filled in
        (b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"AVI ", 0),
    ],
)
def test_declared_size_by_container(tmp_path, content, expected):
    path = tmp_path / "clip"
    path.write_bytes(content)
    assert declared_bytes(path) == expected


def y4m(path):
    """Grey pictures in a file without a codec."""
    height, width = odd_videos.SIZE
    picture = b"FRAME\n" + bytes(width * height * 3 // 2)
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode() + picture * 9)


def mjpeg(path):
    """JPEG pictures one behind the other."""
    with path.open("wb") as stream:
        for number in range(9):
            Image.fromarray(odd_videos.numbered(number)).save(stream, "JPEG")


BARE = {
    "dv": lambda path: odd_videos.write(path, range(9), codec="dvvideo", size=(576, 720), options={}),
    "mjpeg": mjpeg,
    "ogv": lambda path: odd_videos.write(path, range(9), codec="libvpx", options={}),
    "y4m": y4m,
}


@pytest.mark.parametrize("suffix", BARE)
def test_a_file_without_a_length_that_breaks_off_in_a_frame_is_damaged(tmp_path, suffix):
    path = tmp_path / f"BL_1.{suffix}"
    BARE[suffix](path)
    assert len(list(Decoding(path))) == 9
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 57 // 100])
    with pytest.raises(VideoError, match=rf"BL_1\.{suffix}: .*damaged: the file ends in the middle of a frame"):
        list(Decoding(path))
    accepted = Decoding(path, accept_damaged=True)
    assert 0 < len(list(accepted)) < 9
    assert "in the middle of a frame" in accepted.record.damage
