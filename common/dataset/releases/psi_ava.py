"""PSI-AVA (Valderrama et al., MICCAI 2022): 8 prostatectomies, a phase and a step for every image, one a second.

The dense lists are those of `psi-ava_extended`; `psi-ava` has a row every 35 seconds, and several for an image.
"""

from collections.abc import Iterator
from pathlib import Path

from common.base.files import read_text
from common.base.runtime import UserError, shown
from common.dataset.importing.images import image_folders, numbered_entry
from common.dataset.importing.release import Entry, Phases, Reading, Release

PHASES = Phases(
    (
        "Tiempo_muerto",
        "LPAI",
        "LPAD",
        "Espacio_de_Retzius",
        "Complejo_venoso_dorsal",
        "Id_Cuello_Vesical",
        "Vesículas_Seminales",
        "Fascia_Denonvilliers",
        "Control_Pediculos",
        "Separacion_Prostata_Uretra",
        "Rec_Cuello_Vesical",
    )
)
STEPS = Phases(
    (
        "Tiempo_muerto",
        "Id_Vena_Arteria_Iliaca",
        "Diseccion_Ganglios_Iliacos",
        "Diseccion_Ganglios_Obturadores",
        "Empacar_Ganglios",
        "Diseccion_Prevesical",
        "Pasar_Aguja_Cvdp",
        "Diseccion_Prostata",
        "Diseccion_Seminal",
        "Diseccion_Denon",
        "Corte_Prostata",
        "Sujetar_Prostata",
        "Empacar_Prostata",
        "Pasar_Aguja_Uretra",
        "Pasar_Aguja_Cuello",
        "Halar_sutura",
        "Anudar",
        "Succion",
        "Corte",
        "Corte_Vejiga",
        "Clip_Pediculos",
    )
)
NUM_COLUMNS = 13  # case, image, row, box (4), actions (3), instrument, step, phase
IMAGE, COLUMN = 1, {"steps": 11, "phases": 12}
DIGITS = 5  # of an image's number


def _read(reading: Reading) -> Iterator[Entry]:
    """`psi-ava_extended/fold1/annotations/{train,val}.csv`, together all cases; images `keyframes/CASE001/00000.jpg`."""
    folders = image_folders(reading, "keyframes/*", "**/keyframes/CASE*")
    files: dict[str, Path] = {}
    rows: dict[str, list[tuple[str, list[str]]]] = {}
    for path in _tables(reading):
        with reading.naming_problems():
            for line, text in enumerate(read_text(path).split("\n"), 1):
                if cells := [cell.strip() for cell in text.split(",")] if text.strip() else None:
                    files.setdefault(cells[0], path)
                    rows.setdefault(cells[0], []).append((f"{path}, line {line}", cells))
    for name, path, folder in reading.pair(files, folders, "rows of psi-ava_extended"):
        with reading.naming_problems():
            labels = _labels(rows[name], COLUMN[reading.level], reading.phases)
            yield numbered_entry(reading, name, labels, path, folder, DIGITS)


def _tables(reading: Reading) -> Iterator[Path]:
    """The two tables; each fold validates on what the other trains on, so either has both. One lacking is a problem."""
    tables = "**/psi-ava_extended/{}/annotations/{}.csv"
    reading.require(*(tables.format(fold, part) for fold in ("fold1", "fold2") for part in ("train", "val")))
    for part, other in (("train", "val"), ("val", "train")):
        if found := reading.find(tables.format("fold1", part), tables.format("fold2", other)):
            yield found[0]
        else:
            reading.problems.append(
                f"{reading.folder}: expected psi-ava_extended/fold1/annotations/{part}.csv, found none; its cases are not "
                "imported"
            )


def _labels(rows: list[tuple[str, list[str]]], column: int, phases: Phases) -> dict[int, str]:
    """The phase of each image by its number. Raises `UserError` naming file and line for a damaged row."""
    labels: dict[int, str] = {}
    for where, cells in rows:
        if len(cells) != NUM_COLUMNS:
            raise UserError(f"{where}: expected {NUM_COLUMNS} cells, found {len(cells)}: {shown(','.join(cells))}")
        if not (cells[IMAGE].isascii() and cells[IMAGE].isdecimal()):
            raise UserError(f"{where}: expected the number of an image, found {shown(cells[IMAGE])}")
        phase = phases.numbered(cells[column], where)
        if labels.setdefault(int(cells[IMAGE]), phase) != phase:  # an image may have a row for each box
            raise UserError(f"{where}: image {cells[IMAGE]} is {phase} here, above {labels[int(cells[IMAGE])]}")
    return labels


RELEASES = (
    Release(
        title="PSI-AVA",
        read=_read,
        phases=PHASES,
        steps=STEPS,
        licence="not stated for the data (the repository: MIT)",
        source="Valderrama et al., MICCAI 2022; BCV-Uniandes/TAPIR@4925da4 outputs/data_annotations",
        ask="open archive, linked in github.com/BCV-Uniandes/TAPIR",
        num_videos=8,
        hours=20.4,  # 73,617 images
        tried="miniature; the repository's own tables",
        background="Tiempo_muerto",
        frames_fps=1,
        notes=("all cases are in GraSP too, there with labels of December 2024",),
    ),
)
