"""Files as other versions, settings, spreadsheets and hands leave them: read where the meaning is plain, else refused by name."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from common.base.runtime import UserError
from common.dataset.annotations.annotated import Annotated, known_media
from common.dataset.annotations.known_formats import annotation_format, spellings_of
from tests.common.dataset.annotations.outgoing import prelabelled, read_back, sent, times_of, write_out
from tests.common.dataset.annotations.test_made_cases import changed, refused

VIDEO = prelabelled(edges=times_of(25, 200), num_segments=4)
LAST = VIDEO.seconds(VIDEO.segments[-1])
HUGE = 10**400  # a number of JSON that no float holds


def segments(path, **options):
    return read_back(path, [VIDEO], **options)["case 7"].segments


def first_observation(project):
    return project["observations"]["case 7"]


def test_times_of_elan_that_are_not_whole_or_not_positive(tmp_path):
    path = changed("elan", tmp_path, lambda text: text.replace('TIME_VALUE="0"', 'TIME_VALUE="-500.4"', 1))
    found = read_back(path, [VIDEO])["case 7"]
    assert found.segments == sent(VIDEO)
    assert "0.500 s before the video" in found.notes[0]
    later = f'TIME_VALUE="{round(1000 * LAST[1])}"'
    refused(changed("elan", tmp_path, lambda text: text.replace(later, f'TIME_VALUE="{HUGE}"')), "has no time")


def test_an_eaf_without_media_is_of_the_video_that_it_is_called_as(tmp_path):
    path = write_out("elan", [VIDEO], tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line for line in lines if "_URL" not in line), encoding="utf-8")
    assert segments(path) == sent(VIDEO)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('TIME_UNITS="milliseconds"', 'TIME_UNITS="PAL-frames"'), "PAL-frames"),
        (("MEDIA_DESCRIPTOR ", 'MEDIA_DESCRIPTOR TIME_ORIGIN="--5" '), "'--5'"),
        (('TIER_ID="look here"', 'TIER_ID="phase"'), "several tiers are called 'phase'"),
    ],
)
def test_what_elan_would_not_write_is_named(change, words, tmp_path):
    refused(changed("elan", tmp_path, lambda text: text.replace(*change, 1)), words)


def test_parts_of_one_annotation_that_share_its_time_are_named_as_that(tmp_path):
    def divide(text):
        parts = [("b1", "", "incision"), ("b2", ' PREVIOUS_ANNOTATION="b1"', "background")]
        tier = "".join(
            f'<ANNOTATION><REF_ANNOTATION ANNOTATION_ID="{name}" ANNOTATION_REF="a1"{previous}>'
            f"<ANNOTATION_VALUE>{phase}</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>"
            for name, previous, phase in parts
        )
        text = text.replace("<ANNOTATION_VALUE>", "<ANNOTATION_VALUE>said: ")
        return text.replace("    <LINGUISTIC_TYPE", f'<TIER TIER_ID="parts">{tier}</TIER>\n    <LINGUISTIC_TYPE', 1)

    refused(
        changed("elan", tmp_path, divide), "tier parts, annotation b2: has no time", "several parts of annotation a1"
    )


def test_a_packed_project_is_told_by_its_content(tmp_path):
    path = write_out("boris", [VIDEO], tmp_path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert path.suffix == ".boris"
    assert segments(path) == sent(VIDEO)


@pytest.mark.parametrize(
    "change",
    [
        lambda project: project.update(project_format_version=7.0),
        lambda project: first_observation(project).update(file=["../theatre/case 7.mp4"]),
        lambda project: first_observation(project).update(type=None),
    ],
)
def test_projects_of_other_versions_of_boris(change, tmp_path):
    assert segments(changed("boris", tmp_path, change)) == sent(VIDEO)


def test_an_event_of_boris_before_the_video_is_no_join_of_files(tmp_path):
    path = changed("boris", tmp_path, lambda project: first_observation(project)["events"][0].__setitem__(0, -0.5))
    found = read_back(path, [VIDEO])["case 7"]
    assert found.segments == sent(VIDEO)
    assert "0.500 s before the video" in found.notes[0]


@pytest.mark.parametrize("mark", ["\t", ",", ";"])
@pytest.mark.parametrize("time", [lambda seconds: f"{seconds:.3f}", lambda seconds: f"0:00:{seconds:06.3f}"])
def test_a_table_of_boris_that_a_spreadsheet_has_saved(mark, time, tmp_path):
    head = ["Observation id", "Media file", "Subject", "Behavior", "Behavior type", "Start (s)", "Stop (s)"]
    rows = [
        ["case 7", VIDEO.file_name, "", segment.phase.replace("&<", " ").replace('>"', " "), "STATE", *map(time, VIDEO.seconds(segment))]
        for segment in VIDEO.segments
    ]  # fmt: skip
    path = tmp_path / "events.csv"
    text = "\n".join(mark.join(row) for row in [head, *rows])
    path.write_text(text.replace(".", ",").replace(",mp4", ".mp4") if mark == ";" else text, encoding="utf-8")
    assert annotation_format(path) == "boris"
    assert segments(path) == sent(VIDEO)


def test_a_checkbox_of_via_has_one_phase(tmp_path):
    def check(project):
        project["attribute"]["1"]["type"] = 2
        for entry in project["metadata"].values():
            entry["av"]["1"] += ","

    path = changed("via", tmp_path, check)
    assert segments(path) == sent(VIDEO)
    path = changed("via", tmp_path, lambda project: (check(project), project["metadata"]["1_00000001"]["av"].update({"1": "0,1"})))  # fmt: skip
    refused(path, "annotation 1_00000001", "several phases (background, incision)")


def test_a_project_of_via_2_is_named_as_that(tmp_path):
    path = tmp_path / "project.json"
    path.write_text('{"_via_settings": {}, "_via_img_metadata": {}, "_via_attributes": {}}')
    with pytest.raises(UserError, match=r"project\.json: a project of VIA 2"):
        annotation_format(path)


def test_relations_and_other_timelines_of_label_studio_are_left_out(tmp_path):
    def add(tasks):
        regions = tasks[0]["predictions"][0]["result"]
        regions.append({"from_id": "r0", "to_id": "r1", "type": "relation", "direction": "right"})
        tool = {"ranges": [{"start": 5, "end": 90}], "timelinelabels": ["forceps"]}
        regions.append({"id": "t", "from_name": "tools", "to_name": "video", "type": "timelinelabels", "value": tool})

    assert segments(changed("labelstudio", tmp_path, add)) == sent(VIDEO)


@pytest.mark.parametrize("rate", ["25", "25,0", "50/2"])
def test_a_rate_of_label_studio_as_text(rate, tmp_path):
    assert segments(changed("labelstudio", tmp_path, lambda tasks: tasks[0]["data"].update(fps=rate))) == sent(VIDEO)


@pytest.mark.parametrize("rate", [0, -25, True, "1/0", "fast", 1e-300, None, []])
def test_what_is_no_rate(rate, tmp_path):
    path = changed("labelstudio", tmp_path, lambda tasks: tasks[0]["data"].update(fps=rate))
    refused(path, "has no frame rate", "--fps")


@pytest.mark.parametrize("shape", ["task", "annotation", "text"])
def test_exports_of_label_studio_as_a_storage_has_them(shape, tmp_path):
    (task,) = json.loads(write_out("labelstudio", [VIDEO], tmp_path).read_text(encoding="utf-8"))
    annotation = {"id": 1, "completed_by": 1, "result": task.pop("predictions")[0]["result"]}
    content = {"task": {**task, "annotations": [annotation]}, "annotation": {**annotation, "task": task}}
    path = tmp_path / ("1.txt" if shape == "text" else "1.json")
    path.write_text(json.dumps([content["task"]] if shape == "text" else content[shape]))
    assert annotation_format(path) == "labelstudio"
    assert segments(path) == sent(VIDEO)


def enlarge_events(project):
    first_observation(project)["events"][1][0] = HUGE


def enlarge_segment(project):
    project["metadata"]["1_00000000"]["z"][1] = HUGE


def enlarge_region(tasks):
    tasks[0]["predictions"][0]["result"][0]["value"]["ranges"][0]["end"] = HUGE


@pytest.mark.parametrize(
    ("kind", "change"), [("boris", enlarge_events), ("via", enlarge_segment), ("labelstudio", enlarge_region)]
)
def test_numbers_beyond_all_bounds_are_refused(kind, change, tmp_path):
    refused(changed(kind, tmp_path, change), "a whole number of 401 digits")


@pytest.mark.parametrize("kind", ["boris", "via", "labelstudio", "csv"])
def test_a_file_without_anything_says_so(kind, tmp_path):
    empty = {
        "boris": '{"behaviors_conf": {}, "observations": {}}',
        "via": '{"project": {}, "attribute": {}, "file": {}, "metadata": {}, "view": {}}',
        "labelstudio": "[]",
        "csv": "start,end,phase\n",
    }
    path = tmp_path / {"boris": "a.boris", "csv": "a.csv"}.get(kind, "a.json")
    path.write_text(empty[kind])
    refused(path, "has no")


def test_an_empty_file_of_boris(tmp_path):
    path = tmp_path / "a.boris"
    path.write_text("")
    refused(path, "is empty")


@pytest.mark.parametrize("rows", ['start,end,phase\n0,"8,0",incision\n', "Start Time\tEnd Time\tPhase\n0:00\t0:08\tincision\n"])  # fmt: skip
def test_other_ways_to_write_a_table(rows, tmp_path):
    for name in ("case 7.csv", "case 7.txt"):
        path = tmp_path / name
        path.write_text(rows)
        assert segments(path) == ((0, 200, "incision"),)


@pytest.mark.parametrize("time", ["0:75", "0:60:00", "1e300", "9" * 400, "00:00:08:00", "8 s", "1,000,5"])
def test_what_is_no_time(time, tmp_path):
    path = tmp_path / "case 7.csv"
    path.write_text(f"start;end;phase\n0;{time};incision\n")
    refused(path, "line 2", "has no time in end")


def test_what_no_video_lasts(tmp_path):
    path = tmp_path / "case 7.csv"
    path.write_text(f"start;end;phase\n0;{'9' * 300};incision\n")
    assert len(refused(path, "line 2", "which no video lasts")) < 300 + len(str(path))


def test_an_upload_is_known_by_what_a_server_makes_of_its_name():
    names = ["Fall ä & b (2)", "case 7", "case_7"]

    def annotated(medium):
        return Annotated(Path("export.json"), "export.json", {f"/data/upload/1/0a1b2c3d-{medium}": 0.0}, list)

    def video_of(medium):
        return known_media(annotated(medium), names, lambda text: spellings_of(text, "labelstudio"))[0]

    assert video_of("Fall_ä__b_2.mp4") == "Fall ä & b (2)"
    assert video_of("case_7.mp4") == "case_7"
    with pytest.raises(UserError, match="no such video is at hand"):
        known_media(annotated("a_b.mp4"), ["a b", "a (b"], lambda text: spellings_of(text, "labelstudio"))
