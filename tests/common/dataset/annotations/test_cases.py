"""Every file of the reference cases as its table says: read to which frames, or refused with which words."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common.base.paths import CHECKOUT, default_mapping
from common.base.runtime import UserError
from common.dataset.annotations.annotated import KnownPhases, known_media, phases_of
from common.dataset.annotations.known_formats import annotation_format, read_annotations, spellings_of
from common.dataset.annotations.tiling import Tiling, tile
from common.dataset.phases import read_mapping

KNOWN = KnownPhases(read_mapping(default_mapping()).names)
CASES = (CHECKOUT / os.environ.get("REFERENCE_DATA", "../shared") / "cases/annotations").resolve()
# what a message says for each kind of the table
WORDS = {
    "missing-time": "has no time",
    "reversed-interval": "before it starts",
    "overlap": "overlap",
    "unknown-phase": "unknown phase",
    "empty-name": "no phase is named",
    "point-event": "without duration",
    "media-missing": "no such video is at hand",
    "unsafe-xml": "document type or entities",
    "not-readable": "readable",
    "no-phase-tier": "no tier has a known phase",
    "unpaired-state": "needs its stop",
    "not-in-ethogram": "not in the ethogram",
    "no-media": "has no media",
    "frame-rate-unknown": "has no frame rate",
    "not-annotated": "nobody has annotated it",
    "no-header": "expected a head",
    "past-end": "after the end of the video",
    "before-start": "before the video",
    "point-event-ignored": "point event",
    "cut-at-join": "cut where they join",
    "newer-format": "a newer format",
    "region-ignored": "left out",
    "0-based": "0-based",
    "shared-frame": "shared frames",
}
BY_TIMES = {"fps-differs", "gap"}  # told from what is returned, by whoever has the video
FACTS = ("tier", "annotation", "name", "nearest", "start_s", "end_s", "line", "start_frame", "end_frame")


def cases(reference: Path) -> dict[str, dict]:
    return json.loads((reference / "cases/annotations/expected.json").read_text())


@pytest.fixture(scope="module")
def edges(reference_data: Path) -> dict[str, np.ndarray]:
    """Times of the frames and the end of each video; of the second file, which is not there, 10 s as BORIS says."""
    times = {"case_01": np.arange(1501) / 25, "case_02": np.arange(251) / 25}
    for name in ("case_2997", "case_vfr"):
        record = json.loads((reference_data / f"cases/annotations/rates/{name}.pts.json").read_text())
        seconds = np.array(record["seconds"] if isinstance(record, dict) else record)
        times[name] = np.append(seconds, seconds[-1] + np.median(np.diff(seconds)))
    return times


def tilings(path: Path, edges: dict[str, np.ndarray], notes: list[str], **options) -> Iterator[tuple[str, str, Tiling]]:
    kind = annotation_format(path)
    if kind is None:
        raise UserError(f"{path}: not an annotation")
    for annotated in read_annotations(path, KNOWN, kind, **options):
        video, start = known_media(annotated, edges, lambda medium: spellings_of(medium, kind))
        tiling = tile(phases_of(annotated, KNOWN), edges[video] - start)
        notes += [*annotated.notes, *tiling.notes]
        yield video, annotated.annotator, tiling


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        names = [n for n, e in cases(CASES.parents[1]).items() if "not" not in e] if CASES.is_dir() else ["absent"]
        metafunc.parametrize("case", names)


def test_a_file_of_the_table(case, reference_data, edges, tmp_path):
    expected, path = cases(reference_data)[case], reference_data / "cases/annotations" / case
    if path.parent.name in ("csv", "vtt"):  # these are of the video that they are called as
        path = shutil.copy(path, tmp_path / f"case_01{path.suffix}")
    notes: list[str] = []
    options = {"predictions": case == "labelstudio/good_predictions.json"}
    if (kind := expected.get("error")) and kind.startswith("choose"):
        annotators = [one.annotator for one in read_annotations(path, KNOWN, annotation_format(path))]
        assert annotators == [
            str(name) for key in ("tiers", "subjects", "annotators") for name in expected.get(key, [])
        ]
        return
    if kind:
        with pytest.raises(UserError) as error:
            list(tilings(path, edges, notes, **options))
        message = str(error.value)
        assert WORDS[kind] in message
        assert str(path) in message
        for fact in FACTS:
            if fact in expected:
                value = expected[fact]
                assert (f"{value:g}" if isinstance(value, float) else str(value)) in message, fact
        return
    found = {video: tiling for video, _, tiling in tilings(path, edges, notes, **options)}
    wanted = expected.get("videos") or {expected["video"]: expected["segments"]}
    tolerance = expected.get("tolerance_frames", 0)
    assert found.keys() == wanted.keys()
    for video, segments in wanted.items():
        assert [phase for *_, phase in found[video].segments] == [phase for *_, phase in segments]
        differences = np.array([s[:2] for s in found[video].segments]) - np.array([s[:2] for s in segments])
        assert np.abs(differences).max() <= tolerance
    if "video" in expected:
        assert [list(gap) for gap in found[expected["video"]].gaps] == expected.get("gaps", [])
    for notice in set(expected.get("notices", ())) - BY_TIMES:
        assert any(WORDS[notice] in note for note in notes), notice
    assert bool(notes) == bool(set(expected.get("notices", ())) - BY_TIMES)
