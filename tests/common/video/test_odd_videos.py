"""Videos as people have them: every frame, in order, at strictly rising times, with every decoder, or a refusal."""

import functools
import os
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from common.base.runtime import UserError
from common.video.decode import DECODERS, Decoding, decode
from common.video.probe import VideoError, probe
from common.video.seek import open_to_seek
from tests.common import field_pictures, odd_videos
from tests.common.odd_videos import FPS, NUM_FRAMES, ODD, number_of

LEANING = {"x264-params": "keyint=30:bframes=0", "qp": "20"}  # a damaged frame takes those after it along
OTHERS = [name for name in DECODERS if name != "pyav"]


def numbers(frames) -> tuple[int, ...]:
    return tuple(number_of(frame.image) for frame in frames)


def installed(decoder: str) -> bool:
    try:
        Decoding(__file__, decoder)
    except UserError:
        return False
    return True


def frames_or_refusal(path, decoder):
    """The frames; None where the decoder refuses the video by its name and with what to do."""
    try:
        return list(decode(path, decoder))
    except VideoError as error:
        refusal = str(error)
    assert path.name in refusal
    assert "--decoder pyav" in refusal
    return None


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Callable[[str], Path]:
    """The video of a kind, made once."""
    return functools.cache(lambda name: ODD[name].make(tmp_path_factory.mktemp("odd")))


@pytest.mark.parametrize("name", ODD)
def test_every_frame_comes_in_order_at_its_time(made, name):
    odd = ODD[name]
    decoding = Decoding(made(name))
    frames = list(decoding)
    assert numbers(frames) == odd.numbers
    assert np.diff([frame.seconds for frame in frames]) == pytest.approx(np.full(len(frames) - 1, 1 / FPS), abs=2e-3)
    assert set(decoding.record.mended) == odd.mended
    assert (decoding.record.errors, decoding.record.damage) == (0, None)


@pytest.mark.parametrize("decoder", OTHERS)
@pytest.mark.parametrize("name", ODD)
def test_another_decoder_gives_the_same_frames_and_times_or_refuses(made, name, decoder):
    if not installed(decoder):
        pytest.skip(f"{decoder} does not run here")
    path = made(name)
    frames = frames_or_refusal(path, decoder)
    if frames is None:
        return
    assert numbers(frames) == ODD[name].numbers
    assert np.diff([frame.seconds for frame in frames]) == pytest.approx(np.full(len(frames) - 1, 1 / FPS), abs=2e-3)


@pytest.mark.parametrize(
    ("name", "decoder", "reason"),
    [
        ("ts", "decord", "MPEG transport"),
        ("asf", "decord", "ASF files without presentation times"),
        ("trimmed", "decord", "before the start of this trimmed file"),
        ("picture first", "opencv", "first video stream only"),
        ("jump of the clock", "decord", "aborts on times as absurd"),
        ("mkv all at time 0", "decord", "a time of its own"),
    ],
)
def test_what_a_decoder_is_known_to_get_wrong_is_refused_before_the_first_frame(made, name, decoder, reason):
    if not installed(decoder):
        pytest.skip(f"{decoder} does not run here")
    with pytest.raises(VideoError, match=rf"odd\..*{reason}.*--decoder pyav") as error:
        next(decode(made(name), decoder))
    assert error.value.frames_given == 0


def test_decord_runs_in_a_process_of_its_own_and_its_death_costs_one_video(tmp_path, monkeypatch):
    if not installed("decord"):
        pytest.skip("decord does not run here")
    dying = tmp_path / "python"
    dying.write_text("#!/bin/sh\nkill -6 $$\n")
    dying.chmod(0o755)
    path = ODD["mp4"].make(tmp_path)
    assert len(list(decode(path, "decord"))) == NUM_FRAMES
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(VideoError, match=r"odd\.mp4: .*decord's process died, exit code -6"):
        list(decode(path, "decord"))


def test_decord_refuses_pictures_with_a_palette(tmp_path):
    if not installed("decord"):
        pytest.skip("decord does not run here")
    path = odd_videos.with_palette(tmp_path / "palette.avi", range(0, 200, 20))
    assert [int(frame.image.mean()) for frame in decode(path)] == list(range(0, 200, 20))
    with pytest.raises(VideoError, match=r"palette\.avi: .*a video with a palette.*--decoder pyav"):
        list(decode(path, "decord"))


def test_opencv_refuses_interlaced_video(tmp_path):
    settings = {"codec": "libx264", "options": {"x264-params": "tff=1:bframes=0", "flags": "+ilme+ildct"}}
    path = odd_videos.write(tmp_path / "interlaced.mkv", **settings)
    assert numbers(decode(path)) == tuple(range(NUM_FRAMES))
    with pytest.raises(VideoError, match=r"interlaced\.mkv: .*wrong pictures of interlaced video.*--decoder pyav"):
        list(decode(path, "opencv"))


@pytest.mark.parametrize("suffix", ["h264", "ts", "mkv", "mp4", "mov", "avi", "flv"])
def test_two_fields_that_are_stored_alone_are_one_frame(tmp_path, suffix):
    """Recorders write them so (PAFF): an index counts fields, and an AVI has a time for each."""
    count = 20
    path = tmp_path / f"BL_1.{suffix}"
    stream = field_pictures.write_fields(tmp_path / "stream.h264", range(count))
    if suffix == "h264":
        path = stream
    else:
        odd_videos.rewrap(stream, path, timed_as_fields, packets_a_frame=2)
    decoding = Decoding(path)
    frames = list(decoding)
    assert numbers(frames) == tuple(range(count))
    assert np.diff([frame.seconds for frame in frames]) == pytest.approx(np.full(count - 1, 1 / FPS), abs=2e-3)
    assert decoding.record.damage is None
    for decoder in filter(installed, OTHERS):
        assert frames_or_refusal(path, decoder) is None


def timed_as_fields(index, packet):
    packet.pts = packet.dts = round(Fraction(index, 2 * FPS) / packet.time_base)


# --- pictures -------------------------------------------------------------------------------------------------------


def test_a_mirrored_picture_is_mirrored_and_no_other_decoder_gives_it(tmp_path):
    plain = odd_videos.write(tmp_path / "plain.mp4")
    path = odd_videos.mirrored(plain, tmp_path / "mirrored.mp4")
    expected = [frame.image[:, ::-1] for frame in decode(plain)]
    assert all(np.array_equal(ours.image, image) for ours, image in zip(decode(path), expected, strict=True))
    for decoder in filter(installed, OTHERS):
        with pytest.raises(VideoError, match=r"mirrored\.mp4: .*mirrored picture.*--decoder pyav"):
            list(decode(path, decoder))


def test_an_unknown_colour_matrix_is_read_as_bt601_and_noted(make_clip, tmp_path):
    colour = [np.full((48, 64, 3), (200, 60, 90), np.uint8)]
    unknown = 12  # chromaticity-derived non-constant luminance: no table has it
    path = make_clip(tmp_path / "clip.mkv", colour, matrix=6, color_range=1, codec="ffv1")
    (plain,) = Decoding(path)
    path.write_bytes(odd_videos.tagged(path.read_bytes(), unknown))
    decoding = Decoding(path)
    (frame,) = decoding
    assert np.array_equal(frame.image, plain.image)
    assert decoding.record.notes == [f"colour matrix {unknown} is unknown: read as BT.601"]


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_frames_lost_inside_a_video_are_said_with_both_numbers_by_every_decoder(tmp_path, decoder):
    if not installed(decoder):
        pytest.skip(f"{decoder} does not run here")
    path = odd_videos.overwritten(odd_videos.write(tmp_path / "whole.mp4", options=LEANING), tmp_path / "BL_1.mp4")
    given = []
    with pytest.raises(VideoError, match=r"BL_1\.mp4: .*60 frames promised, \d+ decoded") as error:
        given.extend(decode(path, decoder))
    assert error.value.promised == NUM_FRAMES
    assert error.value.frames_given == len(given) < NUM_FRAMES


def test_a_damaged_video_is_taken_where_that_is_asked_for_and_says_so(tmp_path):
    path = odd_videos.overwritten(odd_videos.write(tmp_path / "whole.mp4", options=LEANING), tmp_path / "BL_1.mp4")
    decoding = Decoding(path, accept_damaged=True)
    frames = list(decoding)
    record = decoding.record
    assert 0 < len(frames) == record.decoded < record.promised == NUM_FRAMES
    assert "60 frames promised" in record.damage
    assert record.errors > 0
    assert (np.diff([frame.seconds for frame in frames]) > 0).all()


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi", "ts", "flv"])
def test_a_place_that_does_not_decode_quarantines_in_any_container(tmp_path, container):
    whole = odd_videos.write(tmp_path / f"whole.{container}", options=LEANING)
    assert Decoding(whole).record.errors == 0
    path = odd_videos.overwritten(whole, tmp_path / f"BL_1.{container}", length=6000)
    with pytest.raises(VideoError, match=r"BL_1\..*damaged: .*decode errors?, the first: .*--accept_damaged"):
        list(decode(path))


@pytest.mark.parametrize("suffix", ["mkv", "nut"])
def test_a_joint_whose_second_part_does_not_decode_is_said_by_every_decoder(tmp_path, suffix):
    """Matroska keeps the codec's parameters once; those of a second part of another size are not read."""
    first = odd_videos.write(tmp_path / f"0.{suffix}", range(30))
    second = odd_videos.write(tmp_path / f"1.{suffix}", range(30, 60), size=(72, 128))
    path = odd_videos.joined(first, second, tmp_path / f"BL_1.{suffix}")
    for decoder in filter(installed, DECODERS):
        with pytest.raises(VideoError, match=rf"BL_1\.{suffix}"):
            list(decode(path, decoder))


def test_a_losslessly_trimmed_video_is_whole(tmp_path):
    path = ODD["trimmed"].make(tmp_path)
    assert probe(path).header_frames == NUM_FRAMES
    assert probe(path).promised_frames == NUM_FRAMES - 17
    assert len(list(decode(path))) == NUM_FRAMES - 17


def test_a_damaged_image_is_a_frame_that_is_lost(tmp_path):
    folder = odd_videos.frame_folder(tmp_path / "BL_1")
    for number in (10, 11, 12):
        path = folder / f"{number:06d}.png"
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(VideoError, match=r"BL_1: .*60 frames promised, 57 decoded; 3 decode errors.*000010\.png"):
        list(decode(folder))


@pytest.mark.parametrize("names", [("1.png", "01.png"), ("1.png", "notes.png")], ids=["twice", "without"])
@pytest.mark.parametrize(
    "read", [lambda path: list(decode(path)), probe, open_to_seek], ids=["decode", "probe", "seek"]
)
def test_images_that_cannot_be_put_in_order_cost_one_video(tmp_path, names, read):
    folder = odd_videos.frame_folder(tmp_path / "BL_1", range(3))
    for name in names:
        shutil.copy(folder / "000002.png", folder / name)
    with pytest.raises(VideoError, match=r"BL_1: .*expected .*move (one of them|it) away"):
        read(folder)


# --- what is no video -----------------------------------------------------------------------------------------------


def dangling(path):
    path.symlink_to(path.parent / "gone.mp4")


def pipe(path):
    os.mkfifo(path)


def unknown_codec(path):
    """As bit flips in a header leave it: the codec's name says nothing."""
    content = odd_videos.write(path.with_name("whole.mkv")).read_bytes()
    path.write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/AVX"))


@pytest.mark.parametrize("make", [dangling, pipe, unknown_codec, os.mkdir], ids=["link", "pipe", "codec", "folder"])
@pytest.mark.parametrize("read", [lambda path: list(decode(path)), probe], ids=["decode", "probe"])
def test_whatever_it_is_the_video_is_named(tmp_path, make, read):
    path = tmp_path / "BL_1.mp4"
    make(path)
    with pytest.raises(UserError, match=r"BL_1\.mp4"):
        read(path)


def test_several_videos_in_one_file_are_named(tmp_path, caplog):
    path = odd_videos.two_streams(tmp_path / "two.mkv")
    decoding = Decoding(path)
    assert numbers(decoding) == tuple(range(NUM_FRAMES))
    assert "stream 0 is read, not stream 1 (h264, 160 x 96)" in caplog.text
    assert decoding.record.notes == ["stream 0 is read, not stream 1 (h264, 160 x 96)"]


# --- the cases ------------------------------------------------------------------------------------------------------

CASES = {  # file: its frame numbers, as its README says
    "base.mp4": range(60),
    "camera.mts": range(50),
    "frames": range(19),
    "h264_bframes.avi": range(60),
    "h264_interlaced.mp4": range(1, 60, 2),
    "joined.ts": range(100),
    "mjpeg_then_h264.mov": range(60),
    "plain.ts": range(50),
    "sizechange.ts": range(100),
    "xvid_bframes.avi": range(60),
}


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", CASES)
def test_cases_from_the_field_give_the_right_frames_or_a_refusal(reference_data, name, decoder):
    path = reference_data / "cases" / "video" / name
    if not path.exists() or not installed(decoder):
        pytest.skip(f"no {path}, or {decoder} does not run here")
    frames = list(decode(path)) if decoder == "pyav" else frames_or_refusal(path, decoder)
    if frames is None:
        return
    assert numbers(frames) == tuple(CASES[name])
    assert (np.diff([frame.seconds for frame in frames]) > 0).all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_overwritten_case_is_refused_by_every_decoder(reference_data, decoder):
    path = reference_data / "cases" / "video" / "corrupt_mid.mp4"
    if not path.exists() or not installed(decoder):
        pytest.skip(f"no {path}, or {decoder} does not run here")
    with pytest.raises(VideoError, match=r"60 frames promised, \d+ decoded"):
        list(decode(path, decoder))


def test_damaged_cases_are_named(reference_data):
    folder = reference_data / "cases" / "damaged"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    for path in sorted(folder.iterdir()):
        with pytest.raises(VideoError, match=path.name):
            list(decode(path))
