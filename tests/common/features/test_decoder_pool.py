"""The pool of decoder processes: frames of every size cross whole, processes are light, are reused, and end with their parent."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from common.base.runtime import UserError
from common.features.decoder_pool import HALF_BYTES, DecoderPool
from common.video.decode import DecodingRecord
from common.video.probe import VideoError
from common.video.timeline import Frame

# --- decoders of made frames, which processes import from here ----------------------------------------------------


def picture(number: int, shape: tuple[int, int]) -> np.ndarray:
    return np.full((*shape, 3), number % 251, np.uint8)


def made_frames(path: Path, shapes: list[tuple[int, int]]):
    """Frames of the given shapes, some without pixels as those that are not kept."""
    for number, shape in enumerate(shapes):
        yield number, Frame(picture(number, shape), number / 25), number % 3 == 0
    yield DecodingRecord(decoded=len(shapes))


def who_decodes(path: Path):
    """The process, and whether it has torch."""
    yield DecodingRecord(
        decoded=os.getpid(), notes=[module for module in ("torch", "torchvision") if module in sys.modules]
    )


def failing(path: Path):
    yield 0, Frame(picture(1, (2, 2)), 0.0), True
    if path.name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if path.name == "bad":
        raise VideoError(path, "damaged", 1)
    if path.name == "all":
        raise UserError("no decoder")
    yield DecodingRecord(decoded=1)


def outcomes(pool: DecoderPool, names: list[str]) -> dict[str, object]:
    return {
        name: item for name, item in pool.decode([(name, Path(name)) for name in names]) if not isinstance(item, tuple)
    }


# --- frames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shapes",
    [
        [(4, 6)] * 300,
        [(0, 0), (3, 5), (7, 2)] * 40,
        [(1000, 1500)] * 20,
        [(HALF_BYTES // 3 // 4096 + 1, 4096), (8, 8)] * 3,
    ],
    ids=["more than a batch", "sizes that change", "more than a half", "larger than a half"],
)
def test_frames_cross_whole_and_in_order(shapes):
    with DecoderPool(partial(made_frames, shapes=shapes), 2) as pool:
        decoded = {"a": [], "b": []}
        for name, item in pool.decode([(name, Path(name)) for name in decoded]):
            decoded[name].append(item)
    for *frames, record in decoded.values():
        assert record.decoded == len(shapes)
        assert [(index, frame.seconds, wanted) for index, frame, wanted in frames] == [
            (number, number / 25, number % 3 == 0) for number in range(len(shapes))
        ]
        for number, (_, frame, _) in enumerate(frames):
            assert np.array_equal(frame.image, picture(number, shapes[number]))


# --- processes ----------------------------------------------------------------------------------------------------


def test_processes_are_reused_and_import_no_torch():
    with DecoderPool(who_decodes, 2) as pool:
        records = outcomes(pool, [f"v{number}" for number in range(9)]).values()
    assert 1 <= len({record.decoded for record in records}) <= 2
    assert os.getpid() not in {record.decoded for record in records}
    assert [record.notes for record in records] == [[]] * 9


def test_a_video_that_fails_or_kills_its_process_costs_itself_only():
    with DecoderPool(failing, 1) as pool:
        ended = outcomes(pool, ["a", "dies", "b", "bad", "c"])
    assert {name for name, item in ended.items() if isinstance(item, DecodingRecord)} == {"a", "b", "c"}
    assert "the decoder process died, exit code -9" in str(ended["dies"])
    assert str(ended["bad"]) == str(VideoError(Path("bad"), "damaged", 1))


def test_what_is_wrong_with_all_videos_is_raised():
    with DecoderPool(failing, 2) as pool, pytest.raises(UserError, match="no decoder"):
        outcomes(pool, ["all", "a"])


PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the tests run under ignores
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from functools import partial
from pathlib import Path
from tests.common.features.test_decoder_pool import endless
from common.features.decoder_pool import DecoderPool

pool = DecoderPool(endless, 2).__enter__()
frames = pool.decode([("a", Path("a")), ("b", Path("b"))])
seen = set()
while len(seen) < 2:
    seen.add(next(frames)[0])
print(*(worker.process.pid for worker in pool._workers), flush=True)
"""


def endless(path: Path):
    """Decodes for ever, and most of the time gives nothing."""
    for number in range(100):
        yield number, Frame(picture(number, (2, 2)), 0.0), True
    time.sleep(600)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, None])
def test_processes_end_with_their_parent(ending, checkout):
    waits = "input()" if ending else ""
    command = [sys.executable, "-c", PARENT + waits]  # without an end it leaves its pool open
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
    ) as parent:  # fmt: skip
        children = [int(word) for word in parent.stdout.readline().split()]
        assert len(children) == 2
        if ending:
            parent.send_signal(ending)
        parent.wait(20)
        deadline = time.monotonic() + 5
        while any(map(is_running, children)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_running, children))


def is_running(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
