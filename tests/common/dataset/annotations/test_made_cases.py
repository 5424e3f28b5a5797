"""What is wrong in a file is named with its place, in every format; what is beside the phases is left out."""

from __future__ import annotations

import gzip
import json
import re

import numpy as np
import pytest

from common.base.runtime import UserError
from common.dataset.annotations.annotated import KnownPhases
from common.dataset.annotations.known_formats import annotation_files, annotation_format, read_annotations
from tests.common.dataset.annotations.outgoing import (
    KNOWN,
    PHASES,
    prelabelled,
    read_back,
    sent,
    texts_of,
    times_of,
    write_out,
)

VIDEO = prelabelled(edges=times_of(25, 200), num_segments=4)  # long enough that nothing is within the snap
SEGMENTS = VIDEO.segments
FIRST, SECOND = (VIDEO.seconds(segment) for segment in SEGMENTS[:2])
UNKNOWN = ("incision", "incisoin")  # a typing error
KINDS = ("elan", "boris", "via", "labelstudio", "csv", "vtt")


def written(seconds):
    return f"{seconds:.3f}"


def clock(seconds):
    return f"00:00:{seconds:06.3f}"


def changed(kind, tmp_path, change):
    """The file of a format after `change` of its text, or of what its JSON holds; none may stay as it was."""
    path = write_out(kind, [VIDEO], tmp_path)
    text = path.read_text(encoding="utf-8")
    if kind in ("boris", "via", "labelstudio"):
        content = json.loads(text)
        change(content)
        after = json.dumps(content)
        assert json.loads(text) != content
    else:
        after = change(text)
        assert after != text
    path.write_text(after, encoding="utf-8")
    return path


def refused(path, *words):
    """The message about a file, which names it and has all of the words."""
    with pytest.raises(UserError) as error:
        read_back(path, [VIDEO])
    message = str(error.value)
    assert str(path) in message
    for word in words:
        assert word in message
    return message


def set_end_of_first(seconds):
    """A change for each format by which the first segment ends at another time."""

    def boris(project):
        events = project["observations"]["case 7"]["events"]
        events[1][0] = seconds

    def via(project):
        project["metadata"]["1_00000000"]["z"][1] = seconds

    def labelstudio(tasks):
        tasks[0]["predictions"][0]["result"][0]["value"]["ranges"][0]["end"] = round(seconds * 25)

    return {
        "elan": lambda text: text.replace(f'"ts2" TIME_VALUE="{round(1000 * FIRST[1])}"', f'"ts2" TIME_VALUE="{round(1000 * seconds)}"'),
        "boris": boris,
        "via": via,
        "labelstudio": labelstudio,
        "csv": lambda text: text.replace(f",{written(FIRST[1])},", f",{written(seconds)},", 1),
        "vtt": lambda text: text.replace(f"--> {clock(FIRST[1])}", f"--> {clock(seconds)}", 1),
    }  # fmt: skip


def rename_first(name):
    """A change for each format by which the first segment has another name."""

    def boris(project):
        for event in project["observations"]["case 7"]["events"][:2]:
            event[2] = name
        project["behaviors_conf"]["9"] = {"code": name, "type": "State event"}

    def via(project):
        project["attribute"]["1"]["options"]["9"] = name
        project["metadata"]["1_00000000"]["av"]["1"] = "9"

    def labelstudio(tasks):
        tasks[0]["predictions"][0]["result"][0]["value"]["timelinelabels"] = [name]

    def text(pattern, replacement):
        return lambda content: re.sub(pattern, replacement, content, count=1)

    return {
        "elan": text(r"(<ANNOTATION_VALUE>)[^<]*", rf"\g<1>{name}"),
        "boris": boris,
        "via": via,
        "labelstudio": labelstudio,
        "csv": text(r"(\n[\d.]+,[\d.]+,)[^\n]*?(,[\d.]+,)", rf"\g<1>{name}\g<2>"),
        "vtt": text(r"(<c\.p[^>]*>)[^<]*", rf"\g<1>{name}"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_an_overlap_names_both_times(kind, tmp_path):
    end = SECOND[0] + 0.4
    path = changed(kind, tmp_path, set_end_of_first(end)[kind])
    assert "overlap" in refused(path, written(SECOND[0]), written(end), SEGMENTS[0].phase, SEGMENTS[1].phase)


@pytest.mark.parametrize("kind", KINDS)
def test_a_slip_of_the_hand_is_closed(kind, tmp_path):
    path = changed(kind, tmp_path, set_end_of_first(FIRST[1] + 0.16)[kind])
    found = read_back(path, [VIDEO])["case 7"]
    boundary = SEGMENTS[1].start + 2
    assert found.segments == ((0, boundary, SEGMENTS[0].phase), (boundary, *sent(VIDEO)[1][1:]), *sent(VIDEO)[2:])
    assert (found.num_closed_gaps, found.num_closed_overlaps) == (0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_stays_a_gap(kind, tmp_path):
    path = changed(kind, tmp_path, set_end_of_first(FIRST[1] - 0.4)[kind])
    assert read_back(path, [VIDEO])["case 7"].gaps == ((SEGMENTS[0].end - 10, SEGMENTS[0].end),)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "boris"])
def test_an_end_before_its_start_is_refused(kind, tmp_path):
    """BORIS pairs events by their times: there is none."""
    slots = ('TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4"', 'TIME_SLOT_REF1="ts4" TIME_SLOT_REF2="ts3"')
    shifted = {"elan": lambda text: text.replace(*slots)}
    later = SEGMENTS[1]

    def via(project):
        project["metadata"]["1_00000001"]["z"].reverse()

    def labelstudio(tasks):
        ranges = tasks[0]["predictions"][0]["result"][1]["value"]["ranges"][0]
        ranges["start"], ranges["end"] = ranges["end"], ranges["start"]

    start, end = map(written, SECOND)
    change = shifted | {
        "via": via,
        "labelstudio": labelstudio,
        "csv": lambda text: text.replace(f"{start},{end}", f"{end},{start}"),
        "vtt": lambda text: text.replace(f"{clock(SECOND[0])} --> {clock(SECOND[1])}", f"{clock(SECOND[1])} --> {clock(SECOND[0])}"),
    }  # fmt: skip
    message = refused(changed(kind, tmp_path, change[kind]), "before it starts")
    assert kind == "labelstudio" or later.phase in message


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_name_has_the_nearest_one(kind, tmp_path):
    assert "unknown phase" in refused(
        changed(kind, tmp_path, rename_first("incisoin")[kind]), "'incisoin'", "'incision'"
    )


def test_all_unknown_names_of_a_file_are_told_at_once(tmp_path):
    path = tmp_path / "case 7.csv"
    path.write_text("start,end,phase\n0,1,incisoin\n1,2,bleeding\n2,3,incisoin\n3,4,flush\n")
    refused(path, "line 2: unknown phase 'incisoin'", "unknown here too: 'bleeding', 'flush';")


@pytest.mark.parametrize("kind", KINDS)
def test_capitals_and_blanks_do_not_matter(kind, tmp_path):
    phase = SEGMENTS[0].phase
    path = changed(kind, tmp_path, rename_first(f" {phase.upper().replace('_', ' ')} ".replace("&<", " "))[kind])
    assert read_back(path, [VIDEO])["case 7"].segments == sent(VIDEO)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_phase_is_left_out_when_it_is_named(kind, tmp_path):
    path = changed(kind, tmp_path, rename_first("bleeding")[kind])
    found = read_back(path, [VIDEO], KnownPhases(PHASES, ("Bleeding",)))["case 7"]
    assert found.segments == sent(VIDEO)[1:]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "boris"])
def test_a_segment_without_a_name_is_refused(kind, tmp_path):
    refused(changed(kind, tmp_path, rename_first("")[kind]), "no phase is named", f"{FIRST[0]:g} s")


@pytest.mark.parametrize("kind", ["elan", "boris", "via", "labelstudio"])
def test_another_video_is_named(kind, tmp_path):
    path = write_out(kind, [VIDEO], tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("case 7.mp4", "case_99.mp4").replace("case%207.mp4", "case_99.mp4"), encoding="utf-8")
    refused(path, "case_99.mp4", "no such video is at hand (case 7)")


@pytest.mark.parametrize("kind", ["elan", "boris", "via", "labelstudio"])
def test_a_file_that_is_cut_off_is_refused(kind, tmp_path):
    """A table, or subtitles, may end anywhere."""
    path = write_out(kind, [VIDEO], tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    refused(path, "readable")


@pytest.mark.parametrize(
    "declaration", ['<!DOCTYPE x [<!ENTITY a "background">]>', '<!DOCTYPE x SYSTEM "file:///etc/passwd">']
)
def test_a_document_type_is_refused(declaration, tmp_path):
    path = changed("elan", tmp_path, lambda text: text.replace("?>", f"?>{declaration}", 1))
    refused(path, "document type or entities")


def test_times_of_a_dependent_tier_are_those_of_its_parent(tmp_path):
    def depend(text):
        tier = text[text.index("    <TIER") : text.index("    </TIER>") + len("    </TIER>\n")]
        parent = re.sub(
            r"<ANNOTATION_VALUE>[^<]*", "<ANNOTATION_VALUE>spoken", tier.replace('TIER_ID="phase"', 'TIER_ID="words"')
        )
        child = re.sub(
            r'<ALIGNABLE_ANNOTATION ANNOTATION_ID="a(\d+)"[^>]*>',
            r'<REF_ANNOTATION ANNOTATION_ID="b\1" ANNOTATION_REF="a\1">',
            tier,
        ).replace("/ALIGNABLE_ANNOTATION", "/REF_ANNOTATION")
        return text.replace(tier, parent + child)

    path = changed("elan", tmp_path, depend)
    assert read_back(path, [VIDEO])["case 7"].segments == sent(VIDEO)


def test_an_annotation_that_refers_in_a_circle_has_no_time(tmp_path):
    path = changed(
        "elan",
        tmp_path,
        lambda text: re.sub(
            r'<ALIGNABLE_ANNOTATION ANNOTATION_ID="a1"[^>]*>',
            '<REF_ANNOTATION ANNOTATION_ID="a1" ANNOTATION_REF="a1">',
            text,
        ).replace("/ALIGNABLE_ANNOTATION", "/REF_ANNOTATION", 1),
    )
    refused(path, "annotation a1", "no annotation that has a time")


def test_events_of_boris_in_any_order_and_packed(tmp_path):
    def shuffle(project):
        np.random.default_rng(0).shuffle(project["observations"]["case 7"]["events"])

    path = changed("boris", tmp_path, shuffle)
    packed = tmp_path / "project.boris.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_back(path, [VIDEO])["case 7"].segments == sent(VIDEO)
    assert read_back(packed, [VIDEO])["case 7"].segments == sent(VIDEO)
    packed.write_bytes(packed.read_bytes()[:-20])
    refused(packed, "not readable")


def test_boris_stops_a_phase_a_millisecond_before_the_next(tmp_path):
    def stop_early(project):
        for event in project["observations"]["case 7"]["events"][1:-1:2]:
            event[0] = round(event[0] - 0.001, 3)

    found = read_back(changed("boris", tmp_path, stop_early), [VIDEO])["case 7"]
    assert found.segments == sent(VIDEO)
    assert found.num_closed_gaps == 0


def test_observations_of_boris_without_media_or_stops(tmp_path):
    def live(project):
        project["observations"]["case 7"] |= {"type": "LIVE", "file": []}

    def no_stop(project):
        del project["observations"]["case 7"]["events"][1]

    refused(changed("boris", tmp_path, live), "has no media", "LIVE")
    refused(changed("boris", tmp_path, no_stop), "needs its stop", SEGMENTS[0].phase)


def test_a_rate_that_no_task_of_label_studio_has_is_asked_for(tmp_path):
    path = changed("labelstudio", tmp_path, lambda tasks: tasks[0]["data"].pop("fps"))
    refused(path, "no frame rate", "--fps")
    assert read_back(path, [VIDEO], fps=25)["case 7"].segments == sent(VIDEO)


@pytest.mark.parametrize("value", [1.5, True, "1", None, 10**400])
def test_frames_of_label_studio_are_whole_numbers(value, tmp_path):
    def change(tasks):
        tasks[0]["predictions"][0]["result"][1]["value"]["ranges"][0]["start"] = value

    with pytest.raises(UserError):
        read_back(changed("labelstudio", tmp_path, change), [VIDEO])


@pytest.mark.parametrize(
    "head", ["start;end;phase", "START\tEnd\tPhase", "from;to;label;remark", "sep=;\nstart;end;phase", "phase;start_seconds;end_seconds"]
)  # fmt: skip
def test_tables_as_spreadsheets_write_them(head, tmp_path):
    mark = "\t" if "\t" in head else ";"
    rows = []
    for segment in SEGMENTS:
        start, end = (written(seconds).replace(".", ",") for seconds in VIDEO.seconds(segment))
        name = '"' + segment.phase.replace('"', '""') + '"'
        rows.append(mark.join([name, start, end] if head.startswith("phase") else [start, end, name]))
    path = tmp_path / "case 7.csv"
    path.write_bytes(("\ufeff" + "\r\n".join([head, *rows, "", mark * 2, ""])).encode())
    assert read_back(path, [VIDEO])["case 7"].segments == sent(VIDEO)


@pytest.mark.parametrize("end", ["", "abc", "nan", "inf", "1e3", "1:2:3:4", "-"])
def test_a_time_that_is_none_is_named_with_its_line(end, tmp_path):
    path = tmp_path / "case 7.csv"
    path.write_text(f"start,end,phase\n0,1,background\n1,{end},incision\n")
    refused(path, "line 3", "no time in end")


def test_a_table_may_have_videos_and_annotators(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text("video,start,end,phase,annotator\na.mp4,0,1,background,x\nb,0,1,incision,x\nb,0,2,incision,y\n")
    found = [(list(one.media), one.annotator, len(list(one.read()))) for one in read_annotations(path, KNOWN, "csv")]
    assert found == [(["a.mp4"], "x", 1), (["b"], "x", 1), (["b"], "y", 1)]


def test_files_that_are_no_annotations_are_passed_over(tmp_path):
    for name, content in {
        "config.xml": "<View/>", "notes.txt": "by hand", "settings.json": '{"a": 1}', "clip.mp4": "", "mapping.txt": "0 a\n",
        "todo.csv": "", "prelabel.json": "",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    found = annotation_files(tmp_path)
    assert {path.name: annotation_format(path) for path in found} == dict.fromkeys(
        ["config.xml", "mapping.txt", "notes.txt", "settings.json"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_format_is_recognised_whatever_the_file_is_called(kind, tmp_path):
    path = write_out(kind, [VIDEO], tmp_path)
    assert annotation_format(path) == kind
    if kind in ("boris", "via"):
        assert annotation_format(path.rename(tmp_path / "saved.json")) == kind


def test_the_texts_hold_no_home_folder():
    for kind in KINDS:
        assert not any("/home/" in text or "/tmp/" in text for text in texts_of(kind, [VIDEO]).values())
