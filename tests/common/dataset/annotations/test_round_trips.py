"""What goes out comes back to the frame, and other readers find the same in it."""

from __future__ import annotations

import html
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from common.base.runtime import UserError
from common.dataset.annotations.formats.label_studio import worst_shift
from tests.common.dataset.annotations.outgoing import (
    COLOURS,
    PHASES,
    prelabelled,
    read_back,
    sent,
    texts_of,
    times_of,
    write_out,
)

EXACT = ("elan", "boris", "via", "csv", "vtt")
RATES = (25, 30000 / 1001, "variable")
NO_HOME = "/home/"


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("kind", EXACT)
def test_every_boundary_comes_back(kind, rate, tmp_path):
    video = prelabelled(edges=times_of(rate))
    found = read_back(write_out(kind, [video], tmp_path), [video])["case 7"]
    assert found.segments == sent(video)
    assert (found.gaps, found.num_closed_gaps, found.num_closed_overlaps, found.notes) == ((), 0, 0, ())


@pytest.mark.parametrize("rate", RATES[:2])
def test_label_studio_is_exact_at_constant_rates(rate, tmp_path):
    video = prelabelled(edges=times_of(rate, 20_000))
    assert worst_shift(video) == (0, 0)
    assert read_back(write_out("labelstudio", [video], tmp_path), [video])["case 7"].segments == sent(video)


def test_label_studio_names_what_it_moves_at_variable_rates(tmp_path):
    video = prelabelled(edges=times_of("variable"))
    moved, furthest = worst_shift(video)
    back = read_back(write_out("labelstudio", [video], tmp_path), [video])["case 7"]
    shifts = [
        abs(video.edges[one[0]] - video.edges[other[0]]) for one, other in zip(back.segments, sent(video), strict=True)
    ]
    assert moved == np.count_nonzero(shifts) > 0
    assert furthest == pytest.approx(max(shifts))


@pytest.mark.parametrize("kind", ["boris", "via", "labelstudio"])
def test_a_project_holds_all_videos(kind, tmp_path):
    videos = [prelabelled("case 7"), prelabelled("über_9", times_of(50, 300), seed=3)]
    found = read_back(write_out(kind, videos, tmp_path), videos)
    assert {name: tiling.segments for name, tiling in found.items()} == {video.name: sent(video) for video in videos}


def test_elan_files_are_read_alike_by_pympi(tmp_path):
    elan = pytest.importorskip("pympi.Elan")
    video = prelabelled()
    document = elan.Eaf(str(write_out("elan", [video], tmp_path)))
    expected = [(round(1000 * a), round(1000 * b)) for a, b in map(video.seconds, video.segments)]
    phases = sorted(document.get_annotation_data_for_tier("phase"))
    assert [row[:2] for row in phases] == expected
    assert [row[2] for row in phases] == [segment.phase for segment in video.segments]
    doubts = document.get_annotation_data_for_tier("look here")
    assert len(doubts) == video.num_doubtful
    entries = (
        document.get_cv_entries("phases")
        if hasattr(document, "get_cv_entries")
        else document.controlled_vocabularies["phases"][1]
    )
    assert [entry[0][0][0] for entry in entries.values()] == list(PHASES)


def test_webvtt_files_are_read_alike_by_webvtt_py(tmp_path):
    webvtt = pytest.importorskip("webvtt")
    video = prelabelled()
    cues = list(webvtt.read(str(write_out("vtt", [video], tmp_path))))
    assert [html.unescape(cue.text) for cue in cues] == [segment.phase for segment in video.segments]
    assert [cue.start_in_seconds for cue in cues] == [int(video.seconds(segment)[0]) for segment in video.segments]
    assert sum("doubtful" in cue.raw_text for cue in cues) == video.num_doubtful


def test_an_elan_file_has_its_parts_in_the_order_of_the_schema():
    text, preferences = texts_of("elan", [prelabelled()]).values()
    document = ElementTree.fromstring(text)
    parts = list(dict.fromkeys(part.tag for part in document))
    assert parts == ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "LANGUAGE", "CONTROLLED_VOCABULARY"]
    media = document.find("HEADER/MEDIA_DESCRIPTOR").attrib
    assert media["RELATIVE_MEDIA_URL"] == "../theatre/case 7.mp4"
    assert media["MEDIA_URL"] == "file:///case 7.mp4"
    entries = {entry.get("CVE_ID"): entry.findtext("CVE_VALUE") for entry in document.iter("CV_ENTRY_ML")}
    groups = ElementTree.fromstring(preferences).findall("prefGroup/prefGroup/prefGroup")
    colours = {entries[group.get("key")]: group.findtext("pref/Object") for group in groups}
    assert colours["background"] == "221,221,221"
    assert list(colours) == list(PHASES)


def test_boris_phases_have_keys_colours_and_exclude_each_other():
    (text,) = texts_of("boris", [prelabelled()]).values()
    behaviours = list(json.loads(text)["behaviors_conf"].values())
    assert len({behaviour["key"] for behaviour in behaviours}) == len(PHASES)
    assert [behaviour["color"] for behaviour in behaviours] == list(COLOURS)
    assert [set(one["excluded"].split(",")) for one in behaviours] == [set(PHASES) - {name} for name in PHASES]
    observation = json.loads(text)["observations"]["case 7"]
    assert observation["file"]["1"] == ["../theatre/case 7.mp4"]
    assert sum(event[4].startswith("look here") for event in observation["events"]) == prelabelled().num_doubtful


def test_via_has_a_visible_row_for_every_phase():
    (text,) = texts_of("via", [prelabelled()]).values()
    project = json.loads(text)
    assert project["config"]["ui"]["gtimeline_visible_row_count"] == str(len(PHASES))
    assert list(project["attribute"]["1"]["options"].values()) == list(PHASES)
    assert sum("2" in entry["av"] for entry in project["metadata"].values()) == prelabelled().num_doubtful
    assert project["file"]["1"] == {
        "fid": "1", "fname": "case 7.mp4", "type": 4, "loc": 3, "src": "../theatre/case%207.mp4"
    }  # fmt: skip


def test_label_studio_has_the_rate_and_the_scores():
    tasks, configuration = texts_of("labelstudio", [prelabelled(edges=times_of(30000 / 1001))]).values()
    (task,) = json.loads(tasks)
    assert task["data"] == {"video": "/data/local-files/?d=theatre/case%207.mp4", "fps": 30000 / 1001}
    scores = [region["score"] for region in task["predictions"][0]["result"]]
    assert scores == [round(segment.confidence, 4) for segment in prelabelled().segments]
    labels = ElementTree.fromstring(configuration).findall("TimelineLabels/Label")
    assert [(label.get("value"), label.get("background")) for label in labels] == list(
        zip(PHASES, COLOURS, strict=True)
    )
    assert ElementTree.fromstring(configuration).find("Video").get("frameRate") == "$fps"


def test_nobody_corrected_what_label_studio_only_shows(tmp_path):
    path = write_out("labelstudio", [prelabelled()], tmp_path)
    from common.dataset.annotations.known_formats import read_annotations
    from tests.common.dataset.annotations.outgoing import KNOWN

    (annotated,) = read_annotations(path, KNOWN, "labelstudio")
    with pytest.raises(UserError, match="nobody has annotated"):
        list(annotated.read())
