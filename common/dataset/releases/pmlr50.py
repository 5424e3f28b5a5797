"""PmLR50 (Guo et al., 50 liver resections): the number of a phase for every image, images of one second each."""

from collections.abc import Iterator

from common.dataset.importing.images import image_folders, numbered_entry
from common.dataset.importing.label_tables import numbered_labels
from common.dataset.importing.release import Entry, Phases, Reading, Release

PHASES = Phases(
    (
        "Preparation stage",
        "Knotting of the Foley catheter",
        "Procedure of the liver resection",
        "Release of the Foley catheter",
        "Postprocessing stage",
    )
)
DIGITS = 8  # of an image's number


def _read(reading: Reading) -> Iterator[Entry]:
    """`phase_annotations/01.txt`: a line that says anything, then image and phase, from 0, parted by blanks or a tab.

    The authors' page has the files in folders of the split, their code in one; the effect of blocking and the boxes are
    passed over.
    """
    found = reading.require("phase_annotations/*.txt", "phase_annotations/*/*.txt")
    files = reading.named_once(((path.stem, path) for path in found), "labels")
    folders = image_folders(reading, "frames/*", "frames/*/*")
    for name, path, folder in reading.pair(files, folders, "phase_annotations/<video>.txt"):
        with reading.naming_problems():
            labels = dict(enumerate(numbered_labels(path, reading.phases.numbered, delimiter=" ", skipped=1)))
            yield numbered_entry(reading, name, labels, path, folder, DIGITS)


RELEASES = (
    Release(
        title="PmLR50",
        read=_read,
        phases=PHASES,
        licence="none stated for the data",
        source="Guo et al., AAAI 2025; RascalGdd/PmNet@4e4b71c README.md, datasets/data_preprosses/generate_labels_pmlr.py; "
        "names: CAIR-HKISI/SurgMotion@9f1de59 data_process",
        ask="form in github.com/RascalGdd/PmNet",
        num_videos=50,
        hours=7,  # 25,037 images
        tried="miniature; form by the authors' code",
        frames_fps=1,
        notes=("the authors' code calls val test, and test infer",),
    ),
)
