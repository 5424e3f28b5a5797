"""Small releases of data sets as importers read them: a table, annotations of several owners, images of a few bytes."""

from __future__ import annotations

from pathlib import Path

from common.base.files import write_json, write_text

CENTRES = {"bern": "BBP01", "strasbourg": "SBP01"}
PHASES_101 = (
    "Incision", "Viscous agent injection", "Rhexis", "Hydrodissection", "Phacoemulsificiation",
    "Irrigation and aspiration", "Capsule polishing", "Lens implant setting-up", "Viscous agent removal",
    "Tonifying and antibiotics",
)  # fmt: skip


def write_releases(folder: Path) -> None:
    """Write every release into a folder of its own, two videos each."""
    _write_cataracts(folder)
    _write_table(folder)
    _write_cholect50(folder / "cholect50")
    _write_grasp(folder / "grasp" / "GraSP_1fps")
    _write_multibypass(folder / "multibypass")
    _write_sics(folder / "sics")


def _write_cataracts(folder: Path) -> None:
    """Cataract-101 and Cataract-1K."""
    rows = "".join(f"{number};{phase}\n" for number, phase in enumerate(PHASES_101, 1))
    write_text(folder / "101" / "phases.csv", f"Phase;Meaning\n{rows}")
    write_text(folder / "101" / "videos.csv", "VideoID;Frames;FPS;Surgeon;Experience\n7;12;25;4;1\n12;6;25;3;2\n")
    write_text(folder / "101" / "annotations.csv", "VideoID;FrameNo;Phase\n7;2;1\n7;5;3\n7;8;3\n7;10;1\n12;0;2\n")
    head = "caseId,comment,frame,endFrame,sec,endSec\n"
    for case in (1, 2):
        body = f"{case},Incision,5,10,0.2,0.4\n{case},Capsulorhexis,12,20,0.48,0.8\n"
        write_text(folder / "1k" / f"case_{case}" / f"case_{case}_annotations_phases.csv", head + body)


def _write_table(folder: Path) -> None:
    """A table that a description says how to read; the set is drawn, as a record says."""
    keys = (
        "columns: {video: v, frame: f, label: phase}\nlabel_every: 5\nfirst: 1\nphases: [cut, sew]\nbackground: cut\n"
    )
    write_text(folder / "table.yaml", f"title: Table\ntable: labels.csv\n{keys}source: drawn\nlicence: free\n")
    write_text(folder / "table" / "labels.csv", "v,f,phase\na,1,cut\na,6,sew\nb,1,cut\nb,6,cut\nb,11,sew\n")
    write_json(folder / "table" / "sample.json", {"made_by": "hand", "version": 1})


def _write_images(folder: Path, names: list[str]) -> None:
    for name in names:
        write_text(folder / name, name)


def _write_cholect50(folder: Path) -> None:
    for video in ("VID01", "VID92"):
        annotations = {str(image): [[-1] * 14 + [image // 2]] for image in range(4)}
        write_json(folder / "labels" / f"{video}.json", {"video": 1, "annotations": annotations})
        _write_images(folder / "videos" / video, [f"{image:06}.png" for image in range(4)])


def _write_grasp(folder: Path) -> None:
    for part, case in (("train", "CASE001"), ("test", "CASE041")):
        content = {
            "phases_categories": [{"id": 0, "name": "Idle"}, {"id": 1, "name": "Pedicle Control"}],
            "steps_categories": [{"id": 0, "name": "Idle"}],
            "images": [{"id": 7 + image, "file_name": f"{case}/{image:05}.jpg"} for image in range(3)],
            "annotations": [{"image_id": 7 + image, "phases": image // 2, "steps": 0} for image in range(3)],
        }
        write_json(folder / "annotations" / f"grasp_long-term_{part}.json", content)
        _write_images(folder / "frames" / case, [f"{image:05}.jpg" for image in range(3)])


def _write_multibypass(folder: Path) -> None:
    """Two centres, a video each."""
    for centre, video in CENTRES.items():
        rows = [(0, 2900, "preparation"), (2900, 5999, "omentum_division")]
        phases = [{"start": start, "end": end, "label_name": name, "label_id": 0} for start, end, name in rows]
        write_json(
            folder / "labels" / centre / "labels_by70" / f"{video}.mp4.json", {"phases": phases, "steps": phases}
        )


def _write_sics(folder: Path) -> None:
    """The training part of a release in the layout of SICS-155, with a table that names patients."""
    train = folder / "SICS_155_train" / "train"
    names = ("BL_1", "SD_2")
    for name in names:
        write_text(train / "groundTruth" / f"{name}.txt", "background\nincision\nincision\nsuture\n")
        write_text(train / "videos" / f"{name}.mp4", name)
    rows = "".join(f"{name},person {number}\n" for number, name in enumerate(names))
    write_text(train / "train_annotations.csv", f"video,patient\n{rows}")
