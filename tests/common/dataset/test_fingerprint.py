"""Fingerprints of video files: equal for equal content, different for any change that matters."""

import pytest

from common.dataset.manifest import BLOCK_BYTES, NUM_BLOCKS, video_fingerprint

LARGE = NUM_BLOCKS * BLOCK_BYTES + 12345


def written(path, content: bytes):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
def test_a_copy_under_another_name_has_the_same_fingerprint(tmp_path, size):
    content = bytes(index % 251 for index in range(size))
    first, second = written(tmp_path / "a.mp4", content), written(tmp_path / "b.avi", content)
    assert video_fingerprint(first) == video_fingerprint(second)


def test_a_small_file_is_read_whole(tmp_path):
    content = bytearray(1000)
    before = video_fingerprint(written(tmp_path / "a", content))
    for position in (0, 500, 999):
        changed = bytearray(content)
        changed[position] = 1
        assert video_fingerprint(written(tmp_path / "b", changed)) != before


def test_the_first_and_the_last_byte_and_the_size_of_a_large_file_count(tmp_path):
    content = bytearray(LARGE)
    seen = {video_fingerprint(written(tmp_path / "a", content))}
    for position in (0, LARGE - 1):
        changed = bytearray(content)
        changed[position] = 1
        seen.add(video_fingerprint(written(tmp_path / "b", changed)))
    seen.add(video_fingerprint(written(tmp_path / "c", content[:-1])))
    assert len(seen) == 4
