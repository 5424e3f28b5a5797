"""EgoSurgery-Phase (Fujii et al., MICCAI 2024): open operations seen from the surgeon's head, a phase for every image.

Operations are cut into parts, `<operation>_<part>.csv`, whose images lie in one folder: labels find theirs by name.
"""

from collections.abc import Iterator
from pathlib import Path

from common.base.runtime import UserError
from common.dataset.importing.images import image_folders, images_called
from common.dataset.importing.label_tables import table_rows
from common.dataset.importing.release import Entry, Phases, Reading, Release

PHASES = Phases(  # capitals differ from file to file
    (
        "disinfection",
        "design",
        "anesthesia",
        "incision",
        "dissection",
        "hemostasis",
        "irrigation",
        "closure",
        "dressing",
    )
)


def _read(reading: Reading) -> Iterator[Entry]:
    """`annotations/phase/01_2.csv`: `Frame,Phase`, the name of an image (`01_2_0001`) of `images/01/`, and its phase."""
    folders = image_folders(reading, "images/*", "frames/*")
    tables = reading.require("annotations/phase/*.csv", "phase/*.csv")
    for name in sorted(folders.keys() - {part for path in tables for part in (path.stem, path.stem.partition("_")[0])}):
        reading.problems.append(f"{folders[name]}: no labels of {name}, expected phase/{name}_1.csv; not imported")
    for path in tables:
        operation = path.stem.partition("_")[0]
        folder = folders.get(operation) or folders.get(path.stem)
        with reading.naming_problems():
            labels = _labels(path, reading.phases)
            images = images_called(folder, labels) if folder else None
            yield Entry(path.stem, list(labels.values()).copy, path, images=images, patient=operation)


def _labels(path: Path, phases: Phases) -> dict[str, str]:
    """The phase of each image, by its name. Raises `UserError` naming file and line for an image that is there twice."""
    labels: dict[str, str] = {}
    for where, row in table_rows(path, ("Frame", "Phase"), ","):
        image = row["Frame"]
        if not image or image in labels:
            raise UserError(f"{where}: expected each image once, found {image or 'none'} again; remove one of the rows")
        labels[image] = phases.named(row["Phase"], where)
    return labels


RELEASES = (
    Release(
        title="EgoSurgery-Phase",
        read=_read,
        phases=PHASES,
        licence="CC BY-NC-SA 4.0",
        source="Fujii et al., MICCAI 2024; form: CAIR-HKISI/SurgMotion@9f1de59 data_process/egosurgery_prepare.py",
        ask="form in github.com/Fujiry0/EgoSurgery",
        num_videos=20,
        hours=15,
        tried="miniature; form by code of others",
        frames_fps=0.5,
        notes=("0.5 images a second is from the paper by memory; names of images are not certain",),
        aliases=("EgoSurgery",),
        public_set="egosurgery",
    ),
)
