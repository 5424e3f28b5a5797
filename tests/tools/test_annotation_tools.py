"""What is written opens in the real BORIS, VIA and Label Studio, and what they save comes back to the frame.

`make test-tools` installs BORIS and Label Studio in environments of their own below build/tools; `VIA_HTML` names a copy of
VIA's page. A test whose tool is not there is skipped, by name.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from common.dataset.annotations.annotated import KnownPhases, known_media, phases_of
from common.dataset.annotations.known_formats import annotation_format, annotation_texts, read_annotations, spellings_of
from common.dataset.annotations.tiling import tile
from tests.tools.conftest import BOUNDS, COLOURS, PHASES, tool_python

KNOWN = KnownPhases(PHASES)
SEGMENTS = [(start, end, PHASES[phase]) for start, end, phase in BOUNDS]


def written(kind, video, folder):
    """The files of a format beside the folder of the video."""
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    texts = annotation_texts(
        kind,
        [video],
        PHASES,
        COLOURS,
        {video.name: f"theatre/{video.file_name}"},
        folder_name="theatre",
        model="Base",
        now=now,
    )
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def back(path, video):
    """Segments of a file on the frames of the video, and what else it says."""
    kind = annotation_format(path)
    (annotated,) = read_annotations(path, KNOWN, kind)
    assert known_media(annotated, [video.name], lambda medium: spellings_of(medium, kind)) == (video.name, 0.0)
    return list(tile(phases_of(annotated, KNOWN), video.edges).segments), annotated


def test_boris_opens_the_project(video, tmp_path):
    python = tool_python("boris")
    (path,) = written("boris", video, tmp_path)
    find = "import importlib.util; print(importlib.util.find_spec('boris').submodule_search_locations[0])"
    package = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    environment = os.environ | {"PYTHONPATH": package, "QT_QPA_PLATFORM": "offscreen"}
    words = [python, Path(__file__).with_name("look_in_boris.py"), "-i", path]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["integrity"] == ""
    assert answer["states"] == [[True, "No problem detected"]]
    # what BORIS holds after loading is what it would save
    saved = tmp_path / "saved.boris"
    saved.write_text(json.dumps(answer["project"]))
    assert back(saved, video)[0] == SEGMENTS


def test_via_shows_the_project_and_saves_it(video, tmp_path, chromium):
    page = os.environ.get("VIA_HTML")
    if not page:
        pytest.skip("VIA_HTML names no copy of VIA's page (via_video_annotator.html)")
    (path,) = written("via", video, tmp_path)
    shutil.copy(page, tmp_path / "via.html")
    failures: list[str] = []
    chromium.on("pageerror", lambda error: failures.append(str(error)))
    chromium.goto(f"file://{tmp_path}/via.html")
    chromium.wait_for_function("window.via && via.d")
    chromium.evaluate("text => via.d.project_load(text)", path.read_text(encoding="utf-8"))
    chromium.wait_for_function("document.querySelector('video') && document.querySelector('video').duration > 0")
    assert chromium.evaluate("document.querySelector('video').duration") == pytest.approx(6, abs=0.1)
    assert chromium.evaluate("via.d.store.config.ui.gtimeline_visible_row_count") == str(len(PHASES))
    with chromium.expect_download() as download:
        chromium.evaluate("via.d.project_save()")
    download.value.save_as(tmp_path / "saved.json")
    assert failures == []
    assert back(tmp_path / "saved.json", video)[0] == SEGMENTS


def test_label_studio_shows_the_regions_and_exports_them(video, tmp_path, label_studio, chromium):
    tasks, configuration = written("labelstudio", video, tmp_path)
    made = label_studio.call("POST", "/api/projects", {"title": "phases", "label_config": configuration.read_text()})
    project = made["id"]
    folder = {"project": project, "path": str(tmp_path / "theatre"), "use_blob_urls": True, "title": "videos"}
    label_studio.call("POST", "/api/storages/localfiles", folder)
    label_studio.call("POST", f"/api/projects/{project}/import", json.loads(tasks.read_text()))

    chromium.goto(f"{label_studio.address}/user/login")
    chromium.fill("input[name=email]", label_studio.NAME)
    chromium.fill("input[name=password]", label_studio.PASSWORD)
    chromium.click("button[type=submit]")
    chromium.wait_for_url(lambda address: "login" not in address, timeout=60_000)
    task = label_studio.call("GET", f"/api/tasks?project={project}")["tasks"][0]["id"]
    chromium.goto(f"{label_studio.address}/projects/{project}/data?task={task}")
    # its API takes nonsense without a word: what counts is what a person sees
    chromium.wait_for_function("window.Htx?.annotationStore?.selected?.regions.length > 0", timeout=60_000)
    seen = chromium.evaluate(
        "Htx.annotationStore.selected.regions.map(r => [r.ranges[0].start - 1, r.ranges[0].end, r.labeling.value.timelinelabels[0]])"
    )
    assert [tuple(region) for region in seen] == SEGMENTS
    scores = chromium.evaluate("Htx.annotationStore.selected.regions.map(r => r.score)")
    assert scores == [segment.confidence for segment in video.segments]
    chromium.wait_for_function("document.querySelector('video')?.duration > 0", timeout=60_000)
    chromium.click("button:has-text('Submit')")
    chromium.wait_for_function("Htx.annotationStore.selected.pk", timeout=60_000)
    exported = label_studio.call("GET", f"/api/projects/{project}/export?exportType=JSON")
    (tmp_path / "export.json").write_text(json.dumps(exported))
    segments, annotated = back(tmp_path / "export.json", video)
    assert segments == SEGMENTS
    assert annotated.work_seconds > 0
