"""Feature files: layout on disk, what counts as finished, what is refused."""

import errno
import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest

import common.features.files
from common.base.files import sha256_of_file, video_fingerprint
from common.base.runtime import UserError
from common.features.files import IDENTITY, FeatureWriter, is_extracted, open_features, sidecar_path
from common.video.timeline import Timeline

DIM = 7
AS_MADE = {
    "encoder": "Base",
    "weights": {"source": "local", "file": "w.pth", "sha256": "00ff"},
    "pooling": "average",
    "window": None,
    "preprocessing": {"size": 224, "mean": [0.5], "std": [0.5]},
    "sampling": {"fps": None},
    "dtype": "float32",
    "decoder": "pyav",
}


def rows(num_frames: int, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_frames, dim)).astype(np.float32)


def sidecar(num_frames: int, **changes) -> dict:
    return AS_MADE | {"timeline": Timeline.every_frame(num_frames, 25).to_json()} | changes


def write(path, num_frames: int = 20, dtype: str = "float32", **changes):
    with FeatureWriter(path, DIM, dtype) as writer:
        for start in range(0, num_frames, 8):
            writer.append(rows(num_frames)[start : start + 8])
        writer.finish(sidecar(num_frames, **changes))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features" / "BL_0001.npy"


def files(path) -> set[str]:
    return {each.name for each in path.parent.iterdir()}


def test_features_are_found_however_their_folder_encodes_an_accent(path):
    composed, decomposed = (path.with_name(f"{unicodedata.normalize(form, 'é')}.npy") for form in ("NFC", "NFD"))
    write(decomposed)
    assert is_extracted(composed, AS_MADE)
    file = open_features(composed)
    assert file.path == decomposed
    assert file.sidecar is not None


# --- layout -------------------------------------------------------------------------------------------------------


def test_numpy_loads_one_column_a_frame(path):
    array = np.load(write(path))
    assert array.shape == (DIM, 20)
    assert array.dtype == np.float32
    assert np.array_equal(array, rows(20).T)


def test_file_is_a_header_of_128_bytes_and_one_vector_after_the_other(path):
    content = write(path).read_bytes()
    assert content[:6] == b"\x93NUMPY"
    assert b"'fortran_order': True" in content[:128]
    assert content[128:] == rows(20).tobytes()


def test_a_frames_vector_is_contiguous(path):
    array = np.load(write(path), mmap_mode="r")
    assert array.flags.f_contiguous
    assert array[:, 3].flags.c_contiguous


def test_float16_rounds_each_value(path):
    array = np.load(write(path, dtype="float16"))
    assert array.dtype == np.float16
    assert np.array_equal(array, rows(20).T.astype(np.float16))


@pytest.mark.parametrize(("feature_dim", "num_frames"), [(1, 1), (4096, 3), (2, 100_000)])
def test_header_stays_128_bytes_for_every_size(path, feature_dim, num_frames):
    block = rows(num_frames, feature_dim)
    with FeatureWriter(path, feature_dim, "float32") as writer:
        writer.append(block)
        writer.finish(sidecar(num_frames))
    assert path.stat().st_size == 128 + block.nbytes
    assert np.load(path, mmap_mode="r").shape == (feature_dim, num_frames)


def test_rows_may_come_transposed_in_memory(path):
    block = np.asfortranarray(rows(9))
    with FeatureWriter(path, DIM, "float32") as writer:
        writer.append(block)
        writer.finish(sidecar(9))
    assert np.array_equal(np.load(path), block.T)


def test_sidecar_holds_what_was_said_the_shape_and_the_hash_of_the_file(path):
    record = json.loads(sidecar_path(write(path)).read_text())
    assert record == sidecar(20) | {"shape": [DIM, 20], "sha256": sha256_of_file(path)}


def test_finished_writer_leaves_the_pair_and_nothing_else(path):
    assert files(write(path)) == {"BL_0001.npy", "BL_0001.json"}


def test_folder_is_made(tmp_path):
    assert write(tmp_path / "new" / "folder" / "v.npy").is_file()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_refused_with_file_and_frame(path, value):
    block = rows(5)
    block[2, 3] = value
    with FeatureWriter(path, DIM, "float32") as writer:
        writer.append(rows(8))
        with pytest.raises(UserError, match=r"BL_0001\.npy: .*not finite.* near frame 8"):
            writer.append(block)


def test_value_beyond_float16_is_refused_rather_than_stored_as_infinity(path):
    block = rows(5)
    block[2, 3] = 70_000
    with FeatureWriter(path, DIM, "float16") as writer, pytest.raises(UserError, match="not finite in float16"):
        writer.append(block)


# --- unfinished ---------------------------------------------------------------------------------------------------


def test_writer_left_without_finishing_leaves_nothing(path):
    with FeatureWriter(path, DIM, "float32") as writer:
        writer.append(rows(10))
    assert files(path) == set()


def test_error_in_the_middle_leaves_nothing(path):
    def decoding_fails():
        with FeatureWriter(path, DIM, "float32") as writer:
            writer.append(rows(10))
            raise RuntimeError("decoder")

    with pytest.raises(RuntimeError, match="decoder"):
        decoding_fails()
    assert files(path) == set()


def test_unfinished_writer_leaves_an_earlier_pair_as_it_was(path):
    before = write(path).read_bytes()
    with FeatureWriter(path, DIM, "float32") as writer:
        writer.append(rows(3))
    assert path.read_bytes() == before
    assert is_extracted(path, AS_MADE)


def kill_at(monkeypatch, function: str) -> None:
    """Make a step of `finish` raise what a kill amounts to: the steps after it do not happen."""

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(common.features.files, function, killed)


@pytest.mark.parametrize("step", ["write_json", "publish"])
@pytest.mark.parametrize("replacing", [False, True])
def test_kill_around_the_sidecar_leaves_nothing_that_counts_as_finished(path, monkeypatch, step, replacing):
    if replacing:
        write(path)
    kill_at(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        write(path, num_frames=12)
    monkeypatch.undo()
    assert not is_extracted(path, AS_MADE)


def test_after_a_kill_between_sidecar_and_features_the_video_can_be_extracted_again(path, monkeypatch):
    kill_at(monkeypatch, "publish")
    with pytest.raises(KeyboardInterrupt):
        write(path)
    monkeypatch.undo()
    assert is_extracted(write(path), AS_MADE)


def test_a_process_killed_while_writing_leaves_nothing_that_counts_as_finished(path):
    """SIGKILL: no clean-up runs at all."""
    code = (
        "import os, signal, sys, pathlib, numpy as np\n"
        "from common.features.files import FeatureWriter\n"
        "with FeatureWriter(pathlib.Path(sys.argv[1]), 7, 'float32') as writer:\n"
        "    writer.append(np.ones((500, 7), np.float32))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)])
    assert done.returncode == -9
    assert not is_extracted(path, AS_MADE)
    assert not [name for name in files(path) if name.endswith(".npy") and not name.startswith(".")]
    assert is_extracted(write(path), AS_MADE)
    assert files(path) == {"BL_0001.npy", "BL_0001.json"}


class FullDisk:
    """A file that takes `room` bytes, then answers as a full disk does."""

    def __init__(self, stream, room: int):
        self.stream, self.room = stream, room

    def write(self, content) -> int:
        self.room -= memoryview(content).nbytes
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device", self.stream.name)
        return self.stream.write(content)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def test_full_disk_is_reported_and_leaves_nothing_that_counts_as_finished(path):
    writer = FeatureWriter(path, DIM, "float32")
    writer._stream = FullDisk(writer._stream, room=300)
    with writer:
        writer.append(rows(5))
        with pytest.raises(OSError, match="No space left"):
            writer.append(rows(50))
    assert files(path) == set()


def test_real_limit_on_file_size_leaves_nothing_that_counts_as_finished(path):
    """The same with the operating system refusing, in a process of its own: the buffered rest fails too."""
    code = (
        "import pathlib, resource, signal, sys, numpy as np\n"
        "from common.features.files import FeatureWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    with FeatureWriter(pathlib.Path(sys.argv[1]), 7, 'float32') as writer:\n"
        "        writer.append(np.ones((5000, 7), np.float32))\n"
        "        writer.finish({})\n"
        "except OSError as error:\n"
        "    sys.exit(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == errno.EFBIG, done.stderr
    assert not is_extracted(path, AS_MADE)
    assert files(path) == set()


def test_disk_that_fills_up_at_the_last_bytes_leaves_nothing(path):
    """A small file sits in the buffer until it is closed: the error comes out of `finish`."""
    code = (
        "import pathlib, resource, signal, sys, numpy as np\n"
        "from common.features.files import FeatureWriter\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "try:\n"
        "    with FeatureWriter(pathlib.Path(sys.argv[1]), 7, 'float32') as writer:\n"
        "        writer.append(np.ones((20, 7), np.float32))\n"
        "        writer.finish({})\n"
        "except OSError as error:\n"
        "    sys.exit(error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == errno.EFBIG, done.stderr
    assert not is_extracted(path, AS_MADE)
    assert files(path) == set()


# --- opening ------------------------------------------------------------------------------------------------------


def test_opened_features_are_mapped_not_read(path):
    features = open_features(write(path), DIM)
    assert isinstance(features.array, np.memmap)
    assert features.array.shape == (DIM, 20)
    assert features.timeline.num_frames == 20
    assert features.timeline.fps == pytest.approx(25)


def test_identity_is_the_part_of_the_sidecar_that_decides(path):
    write(path, batch_size=16, finished="2026-01-01")
    assert open_features(path).identity() == AS_MADE


@pytest.mark.parametrize(("key", "value"), [("spacing", "0.25"), ("spacing", True), ("anchor", 7), ("between", [])])
def test_a_window_that_no_extraction_wrote_is_named(path, key, value):
    window = {
        "clip_len": 8,
        "mode": "window",
        "stride": 1,
        "spacing": 0.25,
        "anchor": "clip_len // 2",
        "between": "linear",
    }
    write(path, window=window)
    assert open_features(path).identity()["window"] == window
    record = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps(record | {"window": window | {key: value}}))
    with pytest.raises(UserError, match=rf"BL_0001\.json: .*window\.{key}: expected"):
        open_features(path)


def test_digest_is_the_hash_of_the_file_with_and_without_a_sidecar(path):
    with_sidecar = open_features(write(path)).digest()
    sidecar_path(path).unlink()
    assert with_sidecar == open_features(path).digest() == sha256_of_file(path)


def test_content_is_held_to_the_hash_of_the_sidecar(path):
    write(path)
    open_features(path).verify()
    with open(path, "r+b") as stream:
        stream.seek(200)
        stream.write(b"\x00\x01")
    with pytest.raises(UserError, match=r"BL_0001\.npy: its content is not what was written.*--force"):
        open_features(path).verify()
    sidecar_path(path).unlink()
    open_features(path).verify()  # nothing to hold it to


def test_features_that_come_without_a_sidecar_have_a_frame_for_each_column(path):
    path.parent.mkdir()
    np.save(path, rows(30).T)
    features = open_features(path, DIM)
    assert features.sidecar is None
    assert features.identity() is None
    assert features.timeline.sampled.tolist() == list(range(30))


def test_absent_features_say_what_to_run(path):
    with pytest.raises(UserError, match=r"BL_0001\.npy: no features for this video; run extract_features\.py"):
        open_features(path)


@pytest.mark.parametrize("size", [0, 5, 100, 128, 400])
def test_truncated_features_are_refused_by_name(path, size):
    content = write(path).read_bytes()
    path.write_bytes(content[:size])
    with pytest.raises(UserError, match=r"BL_0001\.npy: truncated or not a \.npy array"):
        open_features(path)


def test_wrong_dimension_is_refused_with_both_numbers(path):
    with pytest.raises(UserError, match=r"BL_0001\.npy: expected feature_dim 2048, found 7"):
        open_features(write(path), 2048)


@pytest.mark.parametrize("shape", [(7,), (7, 0), (2, 3, 4)])
def test_array_of_another_kind_is_refused(path, shape):
    path.parent.mkdir()
    np.save(path, np.zeros(shape))
    with pytest.raises(UserError, match="expected an array"):
        open_features(path)


def test_array_of_objects_is_refused_unopened(path):
    path.parent.mkdir()
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"not a \.npy array"):
        open_features(path)


def test_sidecar_of_another_array_is_refused(path):
    write(path)
    np.save(path, rows(19).T)
    with pytest.raises(UserError, match=r"shape \[7, 19\], but its sidecar says \[7, 20\]"):
        open_features(path)


def test_a_timeline_with_another_number_of_features_is_refused(path):
    write(path, timeline=Timeline.every_frame(19, 25).to_json())
    with pytest.raises(UserError, match=r"BL_0001\.json: its timeline has 19 sampled frames for 20 features"):
        open_features(path)


def test_damaged_sidecar_is_named(path):
    sidecar_path(write(path)).write_text("{")
    with pytest.raises(UserError, match=r"BL_0001\.json: not a readable JSON file"):
        open_features(path)


# --- reuse --------------------------------------------------------------------------------------------------------


def test_finished_pair_made_in_the_same_way_is_reused(path):
    assert is_extracted(write(path), AS_MADE)


def test_features_of_a_video_that_changed_are_not_finished(path, tmp_path, caplog):
    video = tmp_path / "BL_0001.mp4"
    video.write_bytes(b"one recording")
    write(path, fingerprint=video_fingerprint(video))
    assert is_extracted(path, AS_MADE, video)
    video.write_bytes(b"another recording")
    assert not is_extracted(path, AS_MADE, video)
    assert "made from another file than BL_0001.mp4 is now; made again" in caplog.text


def test_features_of_images_at_another_rate_are_not_finished(path, tmp_path, caplog):
    images = tmp_path / "BL_0001"
    images.mkdir()
    (images / "1.png").write_bytes(b"an image")
    write(path, fingerprint=video_fingerprint(images), frames_fps=5.0)
    assert is_extracted(path, AS_MADE, images, frames_fps=5.0)
    assert not is_extracted(path, AS_MADE, images, frames_fps=10.0)
    assert "made at 5.0 images a second, now 10.0; made again" in caplog.text


def test_absent_features_are_not_finished(path):
    assert not is_extracted(path, AS_MADE)


def test_sidecar_alone_is_not_finished(path):
    write(path).unlink()
    assert not is_extracted(path, AS_MADE)


def test_truncated_features_are_not_reused_silently(path):
    path.write_bytes(write(path).read_bytes()[:-1])
    with pytest.raises(UserError, match="truncated"):
        is_extracted(path, AS_MADE)


@pytest.mark.parametrize("key", IDENTITY)
def test_each_difference_that_matters_is_named_with_both_values(path, key):
    write(path)
    with pytest.raises(UserError) as error:
        is_extracted(path, AS_MADE | {key: "something else"})
    assert f"{key}: {AS_MADE[key]!r} in the file, 'something else' now" in str(error.value)
    assert "--variant" in str(error.value)
    assert all(f"{other}:" not in str(error.value) for other in IDENTITY if other != key)


def test_what_does_not_matter_may_differ(path):
    write(path, git={"commit": "a"}, versions={"torch": "1"}, batch_size=4, seconds=3.0)
    assert is_extracted(path, AS_MADE)


def test_features_put_there_by_hand_are_not_overwritten(path):
    path.parent.mkdir()
    np.save(path, rows(30).T)
    with pytest.raises(UserError, match="has no sidecar"):
        is_extracted(path, AS_MADE)


@pytest.mark.parametrize("content", ["[]", '{"shape": [7, 20]}'])
def test_the_json_file_of_another_tool_is_not_taken_for_a_sidecar(path, content):
    sidecar_path(write(path)).write_text(content)
    with pytest.raises(UserError, match=r"BL_0001\.json: not a sidecar of this project"):
        open_features(path)


def test_the_same_weights_under_another_path_are_the_same(path):
    write(path)
    assert is_extracted(path, AS_MADE | {"weights": {"source": "/elsewhere/w.pth", "file": "w.pth", "sha256": "00ff"}})


@pytest.mark.parametrize("change", [{"sha256": "1234"}, {"adapter": {"source": "lora", "sha256": "5678"}}])
def test_other_weights_or_another_adapter_are_named(path, change):
    write(path)
    with pytest.raises(UserError, match=r"made in another way: weights"):
        is_extracted(path, AS_MADE | {"weights": AS_MADE["weights"] | change})


@pytest.mark.parametrize(
    ("was", "now", "same"),
    [
        (None, "teacher", True),
        (None, "state_dict.model", True),
        ("teacher", None, True),
        (None, "target_encoder", False),
        (None, "state_dict_ema", False),
        ("student", "teacher", False),
        ("student", "student", True),
    ],
)
def test_another_network_of_the_same_file_is_other_weights(path, was, now, same):
    """Earlier versions, which recorded none, took the teacher and plain containers, never an average of another name."""
    records = [AS_MADE["weights"] | ({"network": network} if network else {}) for network in (was, now)]
    write(path, weights=records[0])
    if same:
        assert is_extracted(path, AS_MADE | {"weights": records[1]})
    else:
        with pytest.raises(UserError, match="made in another way: weights"):
            is_extracted(path, AS_MADE | {"weights": records[1]})
