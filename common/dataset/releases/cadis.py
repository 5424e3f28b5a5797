"""CaDIS (Grammatikopoulou et al., Medical Image Analysis 2021): masks of 4,670 frames of CATARACTS' training videos.

A label has one channel of ids 0 to 35; each of three tasks joins some of them and ignores others
(RViMLab/MICCAI2021_Cataract_semantic_segmentation@b24ea3b `utils/defaults.py`).
"""

from common.base.entries import IMAGE_SUFFIXES, visible
from common.base.runtime import listed, progress
from common.dataset.importing.mask_content import MaskContent, translated
from common.dataset.importing.release import Reading
from common.dataset.importing.task_release import TaskContent, TaskRelease
from common.dataset.masks import UNLABELLED_PIXEL, read_index_image

NAMES = (
    *("Pupil", "Surgical Tape", "Hand", "Eye Retractors", "Iris", "Skin", "Cornea", "Hydrodissection Cannula"),
    *("Viscoelastic Cannula", "Capsulorhexis Cystotome", "Rycroft Cannula", "Bonn Forceps", "Primary Knife"),
    *("Phacoemulsifier Handpiece", "Lens Injector", "I/A Handpiece", "Secondary Knife", "Micromanipulator"),
    *("I/A Handpiece Handle", "Capsulorhexis Forceps", "Rycroft Cannula Handle", "Phacoemulsifier Handpiece Handle"),
    *("Capsulorhexis Cystotome Handle", "Secondary Knife Handle", "Lens Injector Handle", "Suture Needle"),
    *("Needle Holder", "Charleux Cannula", "Primary Knife Handle", "Vitrectomy Handpiece", "Mendez Ring", "Marker"),
    *("Hydrodissection Cannula Handle", "Troutman Forceps", "Cotton", "Iris Hooks"),
)
ANATOMY = {name: (number,) for number, name in enumerate(NAMES[:7])}  # what is no instrument, and apart in every task
# of each task the classes in the order of their ids, with the ids of the release that each joins; all others are ignored
TASKS: dict[str, dict[str, tuple[int, ...]]] = {
    "1": ANATOMY | {"Instrument": tuple(range(7, 36))},
    "2": ANATOMY
    | {
        "Cannula": (7, 8, 10, 20, 27, 32),
        "Capsulorhexis Cystotome": (9, 22),
        "Tissue Forceps": (11, 33),
        "Primary Knife": (12, 28),
        "Phacoemulsifier Handpiece": (13, 21),
        "Lens Injector": (14, 24),
        "I/A Handpiece": (15, 18),
        "Secondary Knife": (16, 23),
        "Micromanipulator": (17,),
        "Capsulorhexis Forceps": (19,),
    },
    "3": {name: (number,) for number, name in enumerate(NAMES[:25])},
}


def _read(reading: Reading) -> TaskContent:
    """`CADIS/segmentation/Video01/{Images,Labels}/Video1_frame000090.png`: the folder's number is padded, the file's is not."""
    classes = TASKS[reading.part]
    table = dict.fromkeys(range(len(NAMES)), UNLABELLED_PIXEL)
    table |= {value: place for place, values in enumerate(classes.values()) for value in values}
    found = MaskContent(reading, list(classes))
    labels = reading.require(
        "CADIS/segmentation/Video*/Labels/*.png", "segmentation/Video*/Labels/*.png", "**/Video*/Labels/*.png"
    )
    for label in progress(labels, description=reading.release.title, unit="masks"):
        video = label.parents[1]
        with reading.naming_problems():
            ids = translated(read_index_image(label), table, label)
            found.add(video.name, label.stem, video / "Images" / label.name, ids, label)
    for video in sorted({label.parents[1] for label in labels}):
        bare = [
            path.name
            for path in visible(video / "Images")
            if path.suffix.lower() in IMAGE_SUFFIXES and not (video / "Labels" / f"{path.stem}.png").is_file()
        ]
        if bare:
            reading.problems.append(
                f"{video / 'Labels'}: no label of {listed(bare)}, expected one an image; not imported"
            )
    content = found.finish(background=None, own_rule="cadis")
    content.description["ids"] = {
        video: f"cataracts/train{video.removeprefix('Video')}" for video in content.units if video.startswith("Video")
    }
    return content


TASK_RELEASES = (
    TaskRelease(
        title="CaDIS",
        task="segmentation",
        read=_read,
        parts=tuple(TASKS),
        part_flag="--task",
        licence="not seen",
        source="Grammatikopoulou et al., Medical Image Analysis 2021; RViMLab/MICCAI2021_Cataract_semantic_segmentation@b24ea3b",
        ask="cataracts.grand-challenge.org (CaDIS), IEEE DataPort",
        num_videos=25,
        tried="miniature; form by code of others",
        notes=(
            "task 1: 8 classes, all instruments as one; task 2: 17; task 3: 25; others are ignored (255), none is background",
            "videos are CATARACTS' train01 to train25: features trained on those have seen these frames",
            "RViMLab leave out 200 frames and relabel 40; here all are as released",
        ),
    ),
)
