"""Live, with real processes: FFmpeg sends a video to this machine at its own speed, and the command follows it."""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from common.base import paths
from common.extract_features import main as extract_main
from common.train import main as train_main

HEAD = [
    "--num_layers_PG",
    "3",
    "--num_layers_R",
    "2",
    "--num_R",
    "1",
    "--num_f_maps",
    "8",
    "--num_epochs",
    "2",
    "--causal",
]
NUM_FRAMES, FPS = 100, 25
PATIENCE = 60  # seconds, for a busy machine

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg on this machine")


@pytest.fixture(scope="module")
def root(tmp_path_factory, checkout, make_clip):
    """A root with a data set of one video of noise that grows lighter, and a causal head that learned from it."""
    root = tmp_path_factory.mktemp("online")
    (root / "models" / "ColorHistogram").mkdir(parents=True)
    shutil.copy(checkout / "models" / "ColorHistogram" / "config.yaml", root / "models" / "ColorHistogram")
    dataset = paths.Dataset(root / "data" / "clips")
    levels = np.linspace(0, 180, NUM_FRAMES)[:, None, None, None]
    frames = (np.random.default_rng(1).integers(0, 70, (NUM_FRAMES, 48, 64, 3)) + levels).astype(np.uint8)
    # a key frame a second: who joins a stream waits for one
    make_clip(dataset.videos / "a.mp4", list(frames), fps=FPS, options={"g": "25", "bf": "0", "crf": "18"})
    for folder in (dataset.ground_truth, dataset.ground_truth_val):
        folder.mkdir()
        (folder / "a.txt").write_text("background\n" * 40 + "wash\n" * 60)
    dataset.mapping.write_text("0 background\n1 wash\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SICS155_ROOT", str(root))
        extract_main(["--dataset", "clips", "--device", "cpu"], model="ColorHistogram")
        words = ["--dataset", "clips", "--model", "ColorHistogram", "--split", "val", "--device", "cpu"]
        train_main([*words, *HEAD])
    return root


def command(root, source, *words):
    """The command, started in an empty folder beside the root."""
    here = root / "here"
    here.mkdir(exist_ok=True)
    given = [
        source,
        "--model",
        "ColorHistogram",
        "--dataset",
        "clips",
        "--split",
        "val",
        "--run",
        "causal",
        "--device",
        "cpu",
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "common.predict_video", *given, "--online", "--output", "out", *words],
        cwd=here,
        env=os.environ | {"SICS155_ROOT": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_somebody_listens(port):
    """By the system's table: to connect would take the place of the one who is waited for."""
    deadline = time.monotonic() + PATIENCE
    listening = f"0100007F:{port:04X} 00000000:0000 0A"
    while listening not in Path("/proc/net/tcp").read_text():
        assert time.monotonic() < deadline, f"nobody listens on port {port}"
        time.sleep(0.02)


@pytest.fixture
def sender(root):
    """Starts FFmpeg, which waits for somebody to listen; gives the address and the process."""
    started = []

    def start():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        words = ["ffmpeg", "-loglevel", "error", "-re", "-i", str(root / "data" / "clips" / "videos" / "a.mp4")]
        started.append(
            subprocess.Popen([*words, "-c", "copy", "-f", "mpegts", f"{address}?listen=1"], stdin=subprocess.DEVNULL)
        )
        wait_until_somebody_listens(int(address.rpartition(":")[2]))
        return address, started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
def nothing_is_left(root):
    shutil.rmtree(root / "here", ignore_errors=True)


def table_of(root):
    (path,) = (root / "here" / "out").glob("*_online.csv")
    return list(csv.DictReader(path.open()))


@pytest.mark.slow
@needs_ffmpeg
def test_a_stream_is_followed_to_its_end_which_is_said(root, sender):
    address, _ = sender()
    process = command(root, address, "--json_lines")
    out, err = process.communicate(timeout=PATIENCE)
    rows = [json.loads(line) for line in out.splitlines()]
    assert process.returncode == 3
    assert f"{address}: ended after " in err
    assert "Traceback" not in err
    # on the grid of the training's rate, from the first frame on
    assert len(rows) >= NUM_FRAMES - 10
    assert np.diff([row["seconds"] for row in rows]) == pytest.approx([1 / FPS] * (len(rows) - 1), abs=1e-4)
    assert rows[0]["seconds"] == 0
    assert [row["phase"] for row in rows] == [row["phase"] for row in table_of(root)]


@pytest.mark.slow
@needs_ffmpeg
def test_a_stream_that_breaks_off_leaves_what_came(root, sender):
    address, sending = sender()
    process = command(root, address)
    first = process.stdout.readline()
    sending.kill()
    others = process.stdout.readlines()  # not by `communicate`, which loses what was read ahead of the first line
    err = process.stderr.read()
    assert process.wait(PATIENCE) == 3
    assert "what came is kept" in err
    assert len(table_of(root)) == len([first, *others]) < NUM_FRAMES


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_whatever_ends_it_leaves_whole_lines(root, number, code):
    process = command(root, str(root / "data" / "clips" / "videos" / "a.mp4"), "--realtime")
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "Traceback" not in err
    rows = table_of(root)
    assert 5 <= len(rows) < NUM_FRAMES
    assert all(None not in row.values() for row in rows)
    assert [float(row["seconds"]) for row in rows] == pytest.approx(
        [index / FPS for index in range(len(rows))], abs=2e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tcp://127.0.0.1:9", "tcp://127.0.0.1:9: cannot be opened (Connection refused)"),
        ("63", "camera 63: cannot be opened"),
        ("nothing.mp4", "nothing.mp4: no such video file"),
    ],
)
def test_what_cannot_be_opened_is_named_and_leaves_nothing_behind(root, source, message):
    process = command(root, source)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not (root / "here" / "out").exists()
