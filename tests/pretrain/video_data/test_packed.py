"""Packed videos: the frames that direct reading gives, within the error of JPEG; what is damaged is named."""

import io
import itertools
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.base.files import read_json, sha256_of_file, video_fingerprint, write_json
from common.base.runtime import UserError
from common.dataset.manifest import read_manifest
from common.video.decode import decode
from common.video.probe import VideoError
from pretrain.ssl_dataset import VideoSamples
from pretrain.video_data.augment import MultiCrop, MultiScaleCrop, VideoCrop
from pretrain.video_data.clips import ClipReader
from pretrain.video_data.corpora import Corpus, check_packed, read_corpora, write_manifest
from pretrain.video_data.packed import OpenPacked, PackedCorpus, PackSettings, read_packed_corpus, verify_shard
from pretrain.video_data.packing import PackingTask, describe_corpus, pack_corpus, pack_video
from pretrain.video_data.sampling import BalancedSampling

EVERY_FRAME = PackSettings(None, None, 95)
AT_FOUR = PackSettings(4.0, None, 95)
JPEG_ERROR = 3.0  # levels, on average over a soft picture
FPS = 25


def soft_frames(num_frames: int, seed: int = 0, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """Grey ramps, and a bar that moves, so that neighbouring frames differ by more than JPEG does."""
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    frames = []
    for index in range(num_frames):
        picture = np.stack([127 + 90 * np.sin(x + 2 * y + shift + index / 3) for shift in phase], axis=-1)
        frames.append(picture.astype(np.uint8))
    return frames


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_clip) -> Path:
    """A corpus `eyes` of three videos: of constant rate, of variable rate, and one that starts late, in a folder below."""
    folder = tmp_path_factory.mktemp("source") / "eyes"
    uneven = np.cumsum(np.random.default_rng(1).choice([0.02, 0.04, 0.3], 70, p=[0.4, 0.5, 0.1]))
    make_clip(folder / "even.mp4", soft_frames(100), fps=FPS)
    make_clip(folder / "uneven.mkv", soft_frames(70, 1), fps=FPS, seconds=uneven)
    make_clip(folder / "2019" / "late.mkv", soft_frames(80, 2), fps=FPS, seconds=7.3 + np.arange(80) / FPS)
    return folder


def packed_by(source: Path, folder: Path, settings: PackSettings) -> Path:
    """The corpus of a folder, packed to `folder`/eyes."""
    videos = {"2019/late": "2019/late.mkv", "even": "even.mp4", "uneven": "uneven.mkv"}
    files = {name: source / file for name, file in videos.items()}
    corpus = PackedCorpus(folder / source.name, source.name, settings, tuple(files))
    describe_corpus(corpus)
    assert {name: packed.error for name, packed in pack_corpus(corpus, files, num_processes=0)} == dict.fromkeys(files)
    return corpus.folder


@pytest.fixture(scope="module")
def every_frame(source, tmp_path_factory) -> Path:
    return packed_by(source, tmp_path_factory.mktemp("packed"), EVERY_FRAME)


@pytest.fixture(scope="module")
def at_four(source, tmp_path_factory) -> Path:
    return packed_by(source, tmp_path_factory.mktemp("packed"), AT_FOUR)


@pytest.fixture
def shard(every_frame, tmp_path) -> Path:
    """A copy of one packed video, to be damaged."""
    for file in every_frame.glob("even.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path / "even.tar"


def difference(first: np.ndarray, second: np.ndarray) -> float:
    """Mean levels between two pictures or batches of them."""
    assert first.shape == second.shape
    return float(np.abs(first.astype(float) - second.astype(float)).mean())


def corpora_of(folder: Path, tmp_path: Path) -> list[Corpus]:
    return read_corpora([str(folder)], tmp_path / "index.json", num_processes=0)


# --- what is read -------------------------------------------------------------------------------------------------


def test_neighbouring_frames_differ_by_more_than_jpeg_does(source):
    """What keeps the comparisons below honest."""
    images = [frame.image for frame in decode(source / "even.mp4")]
    assert min(difference(one, other) for one, other in itertools.pairwise(images)) > 2 * JPEG_ERROR


@pytest.mark.parametrize("video", ["even.mp4", "uneven.mkv", "2019/late.mkv"])
def test_every_frame_packed_gives_what_the_video_gives(source, every_frame, video):
    path = source / video
    shard = every_frame / Path(video).with_suffix(".tar")
    first, last = (OpenPacked(shard).seconds[place] for place in (0, -1))
    random, reader = np.random.default_rng(0), ClipReader()
    for _ in range(12):
        wanted = random.uniform(first - 0.5, last + 0.5) + np.arange(random.integers(1, 6)) / random.choice([3, 10, 40])
        assert difference(reader.read(shard, wanted), reader.read(path, wanted)) < JPEG_ERROR


@pytest.mark.parametrize("video", ["even.mp4", "uneven.mkv", "2019/late.mkv"])
def test_a_packed_rate_gives_what_the_video_gives_on_its_grid(source, at_four, video):
    """The nearest point of the grid is found here by comparing with every one."""
    path = source / video
    shard = at_four / Path(video).with_suffix(".tar")
    times = np.array([frame.seconds for frame in decode(path)])
    grid = np.arange(times[0], times[-1] + 1e-6, 0.25)
    random, reader = np.random.default_rng(0), ClipReader()
    for second in random.uniform(times[0] - 0.3, grid[-1], 16):
        nearest = grid[np.argmin(np.abs(grid - second))]
        assert difference(reader.read(shard, np.array([second])), reader.read(path, np.array([nearest]))) < JPEG_ERROR


def test_clips_at_the_packed_rate_are_evenly_spaced(at_four):
    """Whatever the start, though frames lie up to 20 ms off the grid: no frame twice, none left out."""
    video = OpenPacked(at_four / "even.tar")
    kept = {video.image(number).tobytes(): number for number in range(len(video.seconds))}
    for start in np.linspace(0, 1, 41):
        clip = video.nearest(start + np.arange(8) / 4)
        numbers = [kept[image.tobytes()] for image in clip]
        assert numbers == list(range(numbers[0], numbers[0] + 8))


def test_frames_keep_their_shape_and_are_never_enlarged(source, tmp_path):
    smaller = packed_by(source, tmp_path / "a", PackSettings(2.0, 48, 90)) / "even.tar"
    larger = packed_by(source, tmp_path / "b", PackSettings(2.0, 4800, 90)) / "even.tar"
    reader = ClipReader()
    assert reader.read(smaller, np.zeros(1)).shape == (1, 48, 64, 3)
    assert reader.read(larger, np.zeros(1)).shape == (1, 96, 128, 3)
    # area averages: each pixel of the smaller is about the mean of four
    whole = reader.read(source / "even.mp4", np.zeros(1)).reshape(1, 48, 2, 64, 2, 3).mean((2, 4))
    assert difference(reader.read(smaller, np.zeros(1)), whole) < JPEG_ERROR


def test_more_packed_videos_than_others_stay_open(every_frame, source):
    reader = ClipReader(open_videos=1)
    shards = [every_frame / f"{name}.tar" for name in ("even", "uneven", "2019/late")]
    for path in shards:
        reader.read(path, np.zeros(1))
    assert list(reader._videos) == shards
    reader.read(source / "even.mp4", np.zeros(1))
    assert list(reader._videos) == [source / "even.mp4"]


# --- samples ------------------------------------------------------------------------------------------------------

RULES = {
    "frames": (MultiCrop(global_size=32, local_size=16, num_local=2, blur="reference"), {}),
    "clips": (VideoCrop(size=32), {"clip_len": 6, "fps": 5}),
    "clips of the autoencoder": (MultiScaleCrop(size=32), {"clip_len": 6, "fps": 5}),
}


@pytest.mark.parametrize(("rule", "options"), RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("short_side", [None, 72])
def test_samples_of_videos_and_of_packed_ones_are_the_same(source, tmp_path, rule, options, short_side):
    """The same videos, times and places of crops for the same numbers; resized pictures are softer by a few levels."""
    packed = packed_by(source, tmp_path, PackSettings(None, short_side, 95))
    direct, small = (
        VideoSamples(BalancedSampling(corpora_of(folder, tmp_path)), rule, seed=3, **options)
        for folder in (source, packed)
    )
    differences = []
    for number in range(10):
        one, other = direct[number], small[number]
        assert one.keys() == other.keys()
        name = "clip" if "clip" in one else "global_crops"
        differences.append(difference(one[name].numpy(), other[name].numpy()))
    assert max(differences) < (JPEG_ERROR if short_side is None else 2 * JPEG_ERROR)


def test_corpora_of_both_are_the_same_but_for_the_paths(source, at_four, tmp_path):
    direct, packed = corpora_of(source, tmp_path), corpora_of(at_four, tmp_path)
    nowhere = [
        [replace(corpus, videos=tuple(replace(video, path=Path()) for video in corpus.videos)) for corpus in corpora]
        for corpora in (direct, packed)
    ]
    assert nowhere[0] == nowhere[1]
    assert [video.name for video in packed[0].videos] == ["2019/late", "even", "uneven"]
    assert all(video.path.suffix == ".tar" for video in packed[0].videos)


# --- layout -------------------------------------------------------------------------------------------------------


def test_a_shard_is_a_tar_of_jpeg_samples(source, at_four):
    """As WebDataset takes it apart: what comes before the first dot of a file's name is the sample's key."""
    record = read_json(at_four / "even.json")
    key = video_fingerprint(source / "even.mp4")[:16]
    with tarfile.open(at_four / "even.tar") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == [f"{key}/{number:08d}.jpg" for number in range(len(members))]
        assert all(member.isreg() for member in members)
        sizes = {Image.open(io.BytesIO(archive.extractfile(member).read())).size for member in members}
    assert sizes == {(128, 96)}
    assert len(members) == record["num_frames"] == 16  # 100 frames of 0.04 s
    assert record["sha256"] == sha256_of_file(at_four / "even.tar")
    assert record["source"]["fingerprint"] == video_fingerprint(source / "even.mp4")


def test_packing_twice_writes_the_same_bytes(source, at_four, tmp_path):
    again = packed_by(source, tmp_path, AT_FOUR)
    assert {path.name for path in again.iterdir()} == {path.name for path in at_four.iterdir()}
    assert sha256_of_file(again / "uneven.tar") == sha256_of_file(at_four / "uneven.tar")
    assert sha256_of_file(again / "uneven.npy") == sha256_of_file(at_four / "uneven.npy")


# --- leaks --------------------------------------------------------------------------------------------------------


def test_packed_videos_are_excluded_and_recorded_as_the_videos_they_were(source, at_four, tmp_path, caplog):
    (tmp_path / "scored").mkdir()
    (tmp_path / "scored" / "other name.mp4").write_bytes((source / "even.mp4").read_bytes())
    scored = [str(tmp_path / "scored")]
    kept = read_corpora([str(at_four)], tmp_path / "index.json", exclude=scored, num_processes=0)
    assert [video.name for video in kept[0].videos] == ["2019/late", "uneven"]
    write_manifest(tmp_path / "manifest.json", "ssl", "dinov3-vitb16", corpora=kept)
    seen = {video.name: video for video in read_manifest(tmp_path / "manifest.json").videos}
    assert seen["uneven"].corpus == "eyes"
    assert seen["uneven"].fingerprint == video_fingerprint(source / "uneven.mkv")
    assert seen["uneven"].size_bytes == (source / "uneven.mkv").stat().st_size


def test_packed_videos_can_be_what_is_excluded(source, at_four, tmp_path):
    with pytest.raises(UserError, match="none of its 3 videos is left"):
        read_corpora([str(source)], tmp_path / "index.json", exclude=[str(at_four)], num_processes=0)


# --- damage -------------------------------------------------------------------------------------------------------


def place_of(shard: Path, number: int) -> int:
    """First byte of a frame in its shard."""
    return int(np.load(shard.with_suffix(".npy"))[number, 1])


def overwrite(path: Path, place: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    path.write_bytes(data)


def with_table(shard: Path, change) -> None:
    table = np.load(shard.with_suffix(".npy"))
    np.save(shard.with_suffix(".npy"), change(table))


def with_record(shard: Path, **changes) -> None:
    write_json(shard.with_suffix(".json"), read_json(shard.with_suffix(".json")) | changes)


def with_header(shard: Path, **changes) -> None:
    """The header of the first frame changed, and its sum set right."""
    table = np.load(shard.with_suffix(".npy"))
    name = f"{read_json(shard.with_suffix('.json'))['source']['fingerprint'][:16]}/00000000.jpg"
    member = tarfile.TarInfo(name)
    member.size = int(table[0, 2])
    for key, value in changes.items():
        setattr(member, key, value)
    overwrite(shard, int(table[0, 1]) - 512, member.tobuf(tarfile.GNU_FORMAT)[:512])


def bomb(width: int, height: int) -> bytes:
    """A JPEG file whose header promises a huge picture."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "JPEG")
    data = bytearray(content.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


DAMAGE = {
    "cut off": (lambda shard: shard.write_bytes(shard.read_bytes()[:-512]), r"expected [\d,]+ bytes, found [\d,]+"),
    "no shard": (lambda shard: shard.unlink(), "No such file"),
    "no record": (lambda shard: shard.with_suffix(".json").unlink(), "No such file"),
    "damaged record": (lambda shard: shard.with_suffix(".json").write_text("{"), "not a readable JSON"),
    "another record": (lambda shard: shard.with_suffix(".json").write_text("{}"), "not the record of a packed video"),
    "another format": (lambda shard: with_record(shard, format=2), "format 2, expected 1"),
    "no rate": (lambda shard: with_record(shard, settings={"fps": -1.0, "short_side": None, "quality": 90}), "above 0"),
    "no table": (lambda shard: shard.with_suffix(".npy").unlink(), "No such file"),
    "damaged table": (lambda shard: shard.with_suffix(".npy").write_bytes(b"x" * 99), "not a .npy array"),
    "short table": (lambda shard: with_table(shard, lambda table: table[:-1]), "expected 100 rows of 3 numbers"),
    "table of text": (lambda shard: with_table(shard, lambda table: table.astype("U9")), "expected real numbers"),
    "times that fall": (lambda shard: with_table(shard, lambda table: table * [-1, 1, 1]), "expected rising times"),
    "places outside": (lambda shard: with_table(shard, lambda table: np.add(table, (0, 1e9, 0))), "row 0 outside"),
    "sizes without end": (lambda shard: with_table(shard, lambda table: np.add(table, (0, 0, 1e12))), "row 0 outside"),
    "places elsewhere": (
        lambda shard: with_table(shard, lambda table: np.add(table, (0, 7, 0))),
        "expected [0-9a-f]{16}/0000",
    ),
    "another name": (
        lambda shard: overwrite(shard, place_of(shard, 0) - 512, b"../../etc/passwd"),
        "expected [0-9a-f]{16}/00000000.jpg, found no file",  # the header's sum no longer fits
    ),
    "a way out": (lambda shard: with_header(shard, name="../../etc/passwd"), r"found \.\./\.\./etc/passwd of"),
    "another frame": (lambda shard: with_header(shard, name="0123456789abcdef/00000000.jpg"), "found 0123456789abcdef"),
    "a link": (lambda shard: with_header(shard, type=tarfile.SYMTYPE, linkname="/etc/passwd"), "00000000.jpg of"),
    "another size": (lambda shard: with_header(shard, size=7), "of 7 bytes"),
    "no JPEG": (lambda shard: overwrite(shard, place_of(shard, 0), b"RIFF"), "00000000.jpg: not a readable JPEG file"),
    "a huge picture": (
        lambda shard: overwrite(shard, place_of(shard, 0), bomb(9_000, 9_000)),
        "9000 x 9000 pixels, expected at most",
    ),
    "a bomb": (lambda shard: overwrite(shard, place_of(shard, 0), bomb(60_000, 60_000)), "not a readable JPEG file"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_line_that_names_the_shard(shard, damage, reason):
    damage(shard)
    with pytest.raises(VideoError, match=reason) as caught:
        ClipReader().read(shard, np.zeros(1))
    assert str(caught.value).startswith(f"{shard}: ")
    assert "\n" not in str(caught.value)
    assert "pack_videos.py" in str(caught.value)


def test_a_changed_byte_is_found_by_the_hashes(shard):
    verify_shard(shard)
    overwrite(shard, place_of(shard, 60) + 200, b"\x00\x01\x02")
    with pytest.raises(VideoError, match=r"even\.tar: expected SHA-256 [0-9a-f]{12}\.\.\., found "):
        verify_shard(shard)


def test_damaged_shards_are_left_out_and_named(source, tmp_path, caplog):
    folder = packed_by(source, tmp_path, PackSettings(2.0, 48, 80))
    (folder / "even.tar").write_bytes(b"short")
    (folder / "uneven.json").unlink()
    assert [video.name for video in corpora_of(folder, tmp_path)[0].videos] == ["2019/late"]
    assert "left out: " in caplog.text
    assert "1 of 3 videos are not packed: uneven" in caplog.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"videos": ["../../etc/passwd"]}, "expected names of videos, found"),
        ({"videos": ["/etc/passwd"]}, "expected names of videos, found"),
        ({"videos": ["a", "A"]}, "expected each video once"),
        ({"corpus": "a/b"}, "expected names of videos, found"),
        ({"videos": [7]}, "expected text, found 7"),
        ({"format": 9}, "format 9, expected 1"),
        ({"settings": {"fps": 4.0, "short_side": 0, "quality": 90}}, "a side above 0"),
    ],
)
def test_a_wrong_description_is_refused(at_four, tmp_path, changes, reason):
    record = json.loads((at_four / "packed.json").read_text()) | changes
    (tmp_path / "packed.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=reason) as caught:
        read_packed_corpus(tmp_path)
    assert str(tmp_path / "packed.json") in str(caught.value)


def test_nothing_outside_of_a_frame_s_place_is_read_for_it(shard):
    """A frame whose neighbours are damaged is still whole."""
    overwrite(shard, place_of(shard, 1), b"\0" * 64)
    reader = ClipReader()
    reader.read(shard, np.zeros(1))
    with pytest.raises(VideoError):
        reader.read(shard, np.array([1 / FPS]))


def test_packing_needs_a_video(tmp_path):
    task = PackingTask("gone", tmp_path / "gone.mp4", tmp_path / "gone.tar", AT_FOUR, False)
    assert "a link to nothing" in str(pack_video(task).error)


# --- what recipes need of packed videos ---------------------------------------------------------------------------


@pytest.fixture
def packed_corpora(at_four, tmp_path) -> list[Corpus]:
    return corpora_of(at_four, tmp_path)


def test_clips_of_more_frames_a_second_than_were_packed_are_refused(packed_corpora):
    with pytest.raises(
        UserError, match=r"corpus eyes: packed with 4 frames a second, expected at least the 8 of the clips"
    ):
        check_packed(packed_corpora, fps=8, crop_size=32)


@pytest.mark.parametrize("fps", [4, 2, 0.25, None])
def test_clips_that_fit_the_packed_rate_pass_in_silence(packed_corpora, caplog, fps):
    check_packed(packed_corpora, fps=fps, crop_size=32)
    assert caplog.text == ""


def test_clips_that_cannot_be_evenly_spaced_are_said(packed_corpora, caplog):
    check_packed(packed_corpora, fps=3, crop_size=32)
    assert "clips of 3 frames a second cannot be evenly spaced among the 4" in caplog.text


def test_frames_smaller_than_their_crops_are_said(source, tmp_path, caplog):
    folder = packed_by(source, tmp_path, PackSettings(4.0, 48, 90))
    check_packed(corpora_of(folder, tmp_path), fps=4, crop_size=64)
    assert "shorter side of 48 pixels, the crops 64: they are enlarged" in caplog.text


def test_videos_that_are_not_packed_are_not_looked_at(source, tmp_path, caplog):
    corpora = corpora_of(source, tmp_path)
    caplog.clear()
    check_packed(corpora, fps=100, crop_size=4000)
    assert caplog.text == ""
