"""The synthetic sample set: same bytes each time, labels that fit the frames, a plausible procedure, cheap re-runs."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import pytest

from common.base.paths import CHECKOUT

PHASES = [line.split()[1] for line in (CHECKOUT / "mapping.txt").read_text().splitlines()]
PRINT_SCHEDULES = """
import json, sample_procedure
names = sample_procedure.video_names(20)
print(json.dumps({name: [[s.phase, s.length] for s in sample_procedure.make_schedule(name, 7)] for name in names}))
"""


def make(output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """One video a validation prefix and one in groundTruth: the smallest set there is."""
    command = [sys.executable, str(CHECKOUT / "data" / "make_sample.py"), "--output", str(output), "--num_videos", "1"]
    return subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("made") / "sample"
    done = make(output)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def schedules() -> dict[str, list[tuple[str, int]]]:
    """Phases and lengths of the default set's videos, without drawing them."""
    command = [sys.executable, "-c", PRINT_SCHEDULES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT / "data", check=True)
    return {name: [tuple(segment) for segment in schedule] for name, schedule in json.loads(done.stdout).items()}


@pytest.mark.slow
def test_layout(sample: Path) -> None:
    assert sorted(content(sample)) == sorted(
        ["README.txt", "mapping.txt", "sample.json", "groundTruth/BL_0001.txt"]
        + [f"groundTruth_val/{name}.txt" for name in ("BL_0002", "BN_0001", "SD_0001")]
        + [f"videos/{name}.mp4" for name in ("BL_0001", "BL_0002", "BN_0001", "SD_0001")]
    )
    assert (sample / "mapping.txt").read_bytes() == (CHECKOUT / "mapping.txt").read_bytes()
    assert "nothing of surgery" in (sample / "README.txt").read_text()


@pytest.mark.slow
def test_one_label_a_decoded_frame(sample: Path) -> None:
    for path in sample.glob("groundTruth*/*.txt"):
        text = path.read_text()
        assert text.endswith("\n")
        assert set(text.splitlines()) <= set(PHASES)
        with av.open(sample / "videos" / f"{path.stem}.mp4") as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            assert (stream.codec_context.name, stream.average_rate) == ("h264", 5)
        assert len(frames) == len(text.splitlines())
        assert {(frame.width, frame.height) for frame in frames} == {(320, 240)}


@pytest.mark.slow
def test_second_run_changes_nothing(sample: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    done = make(sample)
    assert done.returncode == 0
    assert "finished already" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before


@pytest.mark.slow
def test_missing_files_come_back_with_the_same_bytes(sample: Path) -> None:
    before = content(sample)
    kept = sample / "videos" / "BN_0001.mp4"
    written = kept.stat().st_mtime_ns
    (sample / "videos" / "SD_0001.mp4").unlink()
    (sample / "groundTruth" / "BL_0001.txt").unlink()
    done = make(sample)
    assert "made 2 of 4" in done.stdout, done.stderr
    assert content(sample) == before
    assert kept.stat().st_mtime_ns == written


def test_other_data_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("SICS-155, as released\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "BL_0001.mp4").write_bytes(b"real")
    before = content(tmp_path)
    done = make(tmp_path)
    assert done.returncode == 1
    assert "not a sample set" in done.stderr
    assert content(tmp_path) == before


def test_default_set_has_all_phases_and_prefixes(schedules: dict[str, list[tuple[str, int]]]) -> None:
    assert Counter(name[:2] for name in schedules) == {"BL": 9, "BN": 7, "SD": 7}
    training = list(schedules.values())[:20]
    assert {phase for schedule in training for phase, _ in schedule} == set(PHASES)
    lengths = [length for schedule in schedules.values() for _, length in schedule]
    assert min(lengths) == 3
    assert max(lengths) >= 30


def test_schedules_are_plausible_procedures(schedules: dict[str, list[tuple[str, int]]]) -> None:
    for name, schedule in schedules.items():
        phases = [phase for phase, _ in schedule]
        assert phases[0] == phases[-1] == "background", name
        assert 90 <= sum(length for _, length in schedule) <= 160, name
        assert all(first != second for first, second in itertools.pairwise(phases)), name
        landmarks = ("tunnel", "capsulorrhexis", "nucleus_delivery", "cortical_wash", "OVD_IOL_insertion")
        places = [phases.index(landmark) for landmark in landmarks]
        assert places == sorted(places), name
    orders = {tuple(phase for phase, _ in schedule) for schedule in schedules.values()}
    assert len(orders) > len(schedules) * 0.8
    repeated = {phase for order in orders for phase, times in Counter(order).items() if times > 1}
    assert {"cortical_wash", "capsulorrhexis", "tunnel"} <= repeated
    skipped = {phase for order in orders for phase in set(PHASES) - set(order)}
    assert {"peritomy", "cautery", "incision", "tunnel_suture"} <= skipped
