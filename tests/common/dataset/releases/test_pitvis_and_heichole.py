"""PitVis-2023 and HeiChole as they are unpacked: files that lack, damaged rows, further copies of videos, older names."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.dataset.description import read_description
from common.dataset.split_lists import open_splits


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# --- PitVis-2023 --------------------------------------------------------------------------------------------------


def pitvis_video(release: Path, number: int, steps: list[int | str]) -> Path:
    """A video of PitVis with a step a second; the path of its annotations."""
    write(release / f"video_{number:02}.mp4", "video")
    rows = (f"{number},{second},{step},16,-2" for second, step in enumerate(steps))
    head = "int_video,int_time,int_step,int_instrument1,int_instrument2"
    return write(release / f"annotations_{number:02}.csv", head, *rows)


def test_pitvis_background_is_minus_one_and_does_not_count(read, release):
    pitvis_video(release, 1, [-1, 1, 14, -1])
    pitvis_video(release, 2, [11])
    outcome = read("PitVis")
    assert outcome.code == 0
    assert outcome.labels() == {
        "video_01": ["background", "nasal_corridor_creation", "debris_clearance", "background"],
        "video_02": ["gasket_seal_construct"],
    }
    description = read_description(outcome.dataset)
    assert (description.label_fps, description.background) == (1, "background")
    assert description.ids == {"video_01": "pitvis/1", "video_02": "pitvis/2"}
    assert description.ignored == ("background", "gasket_seal_construct", "nasal_packing")
    assert open_splits(outcome.dataset, "SurgRec").tests == [["video_02"]]


def test_pitvis_names_the_video_without_labels_and_damaged_rows(read, release):
    pitvis_video(release, 1, [1])
    pitvis_video(release, 19, [1]).unlink()  # so in the real release
    no_such_step, no_number = pitvis_video(release, 2, [1, 0]), pitvis_video(release, 3, [1, "durotomy"])
    gap = pitvis_video(release, 4, [1, 2, 3])
    gap.write_text(gap.read_text().replace("4,1,2,16,-2\n", ""))
    outcome = read("PitVis-2023")
    assert outcome.code == 1
    assert list(outcome.labels()) == ["video_01"]
    outcome.require_problems(
        {
            release / "video_19.mp4": "no labels of 19, expected annotations_19.csv",
            f"{no_such_step}, line 3": "unknown phase '0'; expected a number from 1 to 14",
            f"{no_number}, line 3": "unknown phase 'durotomy'",
            f"{gap}, line 3": "expected the label of 1, found '2'",
        }
    )


# --- HeiChole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [str, str.lower], ids=["release", "older copies"])
def test_heichole_takes_the_full_videos_whatever_their_case(read, release, case):
    for number, ids in ((1, "006"), (10, "12")):
        rows = (f"{frame},{phase}" for frame, phase in enumerate(ids))
        write(release / case(f"Annotations/Phase/Hei-Chole{number}_Annotation_Phase.csv"), *rows)
        for folder in ("Videos/Full", "Videos/Full/HD"):
            write(release / case(f"{folder}/Hei-Chole{number}.mp4"), folder)
        write(release / case(f"Videos/Skill/Hei-Chole{number}_calot.mp4"), "clip")
    write(release / case("Annotations/Phase/Raw_annotations/Hei-Chole1_Annotation_Phase.csv"), "0,1")
    write(release / case("Annotations/Action/Hei-Chole1_Annotation_Action.csv"), "0,0,0,0,0")
    outcome = read("HeiChole")
    assert outcome.code == 0
    assert outcome.labels() == {
        "Hei-Chole1": ["Preparation", "Preparation", "GallbladderRetraction"],
        "Hei-Chole10": ["CalotTriangleDissection", "ClippingCutting"],
    }
    assert sorted(path.name for path in outcome.dataset.videos.iterdir()) == ["Hei-Chole1.mp4", "Hei-Chole10.mp4"]
    assert (outcome.dataset.videos / "Hei-Chole1.mp4").read_text() == "Videos/Full\n"
    assert read_description(outcome.dataset).ids == {"Hei-Chole1": "heichole/1", "Hei-Chole10": "heichole/10"}


def test_heichole_names_damaged_rows_and_videos_that_lack(read, release):
    folder = release / "Annotations" / "Phase"
    write(release / "Videos" / "Full" / "Hei-Chole1.mp4", "video")
    write(release / "Videos" / "Full" / "Hei-Chole2.mp4", "video")
    write(folder / "Hei-Chole1_Annotation_Phase.csv", "0,0", "1,1")
    damaged = write(folder / "Hei-Chole2_Annotation_Phase.csv", "0,0", "1,7")
    alone = write(folder / "Hei-Chole3_Annotation_Phase.csv", "0,0")
    outcome = read("HeiChole")
    assert outcome.code == 1
    assert list(outcome.labels()) == ["Hei-Chole1"]
    outcome.require_problems({f"{damaged}, line 2": "unknown phase '7'", alone: "labels of Hei-Chole3, but no video"})
