"""The four decoders against each other: frames, times, colours, orientation, and what each says when it cannot."""

import builtins
import importlib.metadata
import pickle
import subprocess
import sys

import numpy as np
import pytest
from tests.common.test_video import BT601, BT709, FULL, LIMITED, corner_frame, make_avi, noise, set_rotation

from common.base.runtime import UserError
from common.video import decoders
from common.video.decode import decode
from common.video.decoders import DECODERS, Frame, VideoError, decoder_version

OTHERS = [name for name in DECODERS if name != "pyav"]
MODULES = {"pyav": "av", "opencv": "cv2", "decord": "decord", "torchcodec": "torchcodec"}


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


def seconds(given: list[Frame]) -> list[float]:
    return [frame.seconds for frame in given]


def test_the_default_and_opencv_run_wherever_the_requirements_are_installed(working):
    assert {"pyav", "opencv"} <= working


# --- the same video, the same frames -------------------------------------------------------------------------------


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_frames_and_times_equal_those_of_pyav(make_clip, tmp_path, other, container):
    path = make_clip(tmp_path / f"clip.{container}", noise(30), fps=30_000 / 1001)
    expected, given = frames(path, "pyav"), frames(path, other)
    assert len(given) == 30
    assert seconds(given) == pytest.approx(seconds(expected), abs=1e-3)
    for ours, theirs in zip(expected, given, strict=True):
        assert theirs.image.dtype == np.uint8
        assert theirs.image.flags.c_contiguous
        assert np.abs(ours.image.astype(int) - theirs.image).max() <= 2


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_variable_rate_gives_one_frame_a_decoded_frame_at_its_time(make_clip, tmp_path, other, container):
    times = np.cumsum([0, 0.04, 0.04, 0.5, 0.02, 0.04, 1.7, 0.033, 0.033, 0.2])
    pictures = [np.full((48, 64, 3), 25 * index, np.uint8) for index in range(10)]
    given = frames(make_clip(tmp_path / f"clip.{container}", pictures, seconds=times), other)
    assert seconds(given) == pytest.approx(times.tolist(), abs=1e-3)
    assert [frame.image.mean() for frame in given] == pytest.approx([25 * index for index in range(10)], abs=2)


def test_frames_stored_out_of_order_come_in_order_of_presentation(make_clip, tmp_path, other):
    pictures = [np.full((48, 64, 3), 8 * index, np.uint8) for index in range(30)]
    path = make_clip(tmp_path / "clip.mp4", pictures, options={"preset": "slow", "bf": "3", "b-adapt": "0", "qp": "10"})
    given = frames(path, other)
    assert seconds(given) == pytest.approx([index / 25 for index in range(30)], abs=1e-3)
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
    assert seconds(given) == pytest.approx(seconds(frames(path, "pyav")), abs=2e-3)


@pytest.mark.parametrize("name", ["tc_bt709_full_range.mp4", "vi_v_GGSY1Qvo990.mp4", "tc_av1.mkv"])
def test_torchcodec_and_pyav_convert_colours_alike(reference_data, working, name):
    if "torchcodec" not in working:
        pytest.skip("torchcodec does not run here")
    path = reference_data / "data" / "videos" / name
    for ours, theirs in zip(frames(path, "pyav"), frames(path, "torchcodec"), strict=True):
        assert np.abs(ours.image.astype(int) - theirs.image).max() <= 1


# --- what cannot be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"this is not a video\n" * 50, np.random.default_rng(0).bytes(20_000)])
def test_what_is_not_a_video_is_an_error_that_names_the_file(tmp_path, other, content):
    path = tmp_path / "BL_0001.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"BL_0001\.mp4.*--decoder pyav") as error:
        frames(path, other)
    assert error.value.frames_given == 0


@pytest.mark.parametrize("container", ["mkv", "avi"])
def test_a_file_that_is_cut_off_is_an_error_with_every_decoder(make_clip, tmp_path, other, container):
    whole = make_avi(tmp_path / "BL_1.avi") if container == "avi" else make_clip(tmp_path / "BL_1.mkv", noise(30))
    assert len(frames(whole, other)) == 30
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    given = []
    with pytest.raises(VideoError, match=r"BL_1") as error:
        given.extend(iterate(whole, other))
    assert 0 < error.value.frames_given < 30


def iterate(path, decoder):
    yield from decode(path, decoder)


def test_an_error_crosses_processes_whole(tmp_path):
    error = VideoError(tmp_path / "BL_1.mp4", "no such codec", 7, advice="use --decoder pyav")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.path, again.reason, again.frames_given) == (
        str(error), error.path, "no such codec", 7,
    )  # fmt: skip


# --- what is not installed -----------------------------------------------------------------------------------------


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
            if name in decoders._PACKAGES[decoder]:
                raise importlib.metadata.PackageNotFoundError(name)
            return real_version(name)

        monkeypatch.setattr(decoders.importlib, "import_module", import_)
        monkeypatch.setattr(decoders.importlib.metadata, "version", version)

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
    class Library:
        @staticmethod
        def VideoDecoder(*_, **__):
            raise RuntimeError("Could not load libtorchcodec. Likely causes: ...")

    path = make_clip(tmp_path / "clip.mp4", solid((9, 9, 9), 2))
    monkeypatch.setattr(decoders, "_library", lambda _: Library)
    with pytest.raises(UserError, match=r"FFmpeg's shared libraries.*--decoder pyav") as error:
        frames(path, "torchcodec")
    assert not isinstance(error.value, VideoError)


def test_an_unknown_decoder_is_an_error_that_lists_the_known(tmp_path):
    with pytest.raises(UserError, match="pyav, opencv, decord, torchcodec"):
        frames(tmp_path / "clip.mp4", "vlc")


def test_decoder_version_names_the_package(working):
    for name in working:
        package, version = decoder_version(name).split()
        assert MODULES[name] in package or name in package
        assert version[0].isdecimal()


@pytest.mark.parametrize("name", ["cv2", "decord", "torchcodec", "torch", "av"])
def test_importing_the_module_loads_no_decoder(name):
    code = f"import common.video.decode, sys; sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
