"""Make `data/sample-masks`: a small synthetic data set of masks, drawn, for `common.segment`.

    python data/make_masks.py            # 15 videos of 8 images each, seconds, the same bytes each time

Eyes and instruments are those of `data/make_sample.py`; each image comes with the class of each of its pixels: background, iris,
pupil, instrument. Every video is a group, ten to learn from and five for the test. Results on it say nothing of surgery.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from common.base.entries import visible
from common.base.files import atomic_path, read_json, read_text, write_json, write_text
from common.base.options import CommandParser
from common.base.paths import Dataset, repository_root
from common.base.runtime import UserError, progress, run_main

VERSION = 1  # raise it when what is drawn changes
SEED = 23
CLASSES = ("background", "iris", "pupil", "instrument")
NUM_TRAIN, NUM_TEST = 10, 5
LIST = "drawn"
NOTICE = "Synthetic: every image here is drawn by `python data/make_masks.py`; no patient, no camera, no surgery.\n"
DESCRIPTION = """task: segmentation
source: drawn by data/make_masks.py
licence: as the code
"""


def main(argv: list[str] | None = None) -> int:
    """Draw the set, unless it is there; returns the exit code."""
    parser = CommandParser(None, __doc__)
    data, output = parser.groups["data"], parser.groups["output"]
    data.add_argument("--num_images", type=int, default=8, help="images of a video (default: %(default)s)")
    default = repository_root() / "data" / "sample-masks"
    output.add_argument("--output", type=Path, default=default, help="folder (default: %(default)s)")
    given = parser.parse_args(argv)
    if given.num_images < 1:
        parser.error("--num_images must be at least 1")
    dataset = Dataset(given.output.resolve())
    parameters = {"made_by": "data/make_masks.py", "version": VERSION, "num_images": given.num_images, "seed": SEED}
    record = dataset.sample_record
    if record.is_file() and read_json(record) == parameters:
        print(f"{dataset.root}: finished already")
        return 0
    notice = dataset.root / "README.txt"
    if dataset.root.is_dir() and visible(dataset.root) and not (notice.is_file() and read_text(notice) == NOTICE):
        raise UserError(f"{dataset.root} is not empty and not a drawn set of masks; name another folder with --output")

    # after --help, which needs neither OpenCV nor Pillow
    from sample_masks import draw_video

    record.unlink(missing_ok=True)
    write_text(notice, NOTICE)
    for folder in (dataset.images, dataset.masks):
        shutil.rmtree(folder, ignore_errors=True)
    videos = [f"eye_{number:02d}" for number in range(1, NUM_TRAIN + NUM_TEST + 1)]
    for video in progress(videos, description="drawing", unit="videos"):
        for number, (image, ids) in enumerate(draw_video(video, given.num_images, SEED), 1):
            for folder, pixels in ((dataset.images, image), (dataset.masks, ids)):
                _save(folder / video / f"{video}_{number:03d}.png", pixels)
    write_text(dataset.mapping, "".join(f"{number} {name}\n" for number, name in enumerate(CLASSES)))
    write_text(dataset.description, DESCRIPTION)
    for part, names in (("train", videos[:NUM_TRAIN]), ("test", videos[NUM_TRAIN:])):
        write_text(dataset.bundle(part, 1, LIST), "".join(f"{name}\n" for name in names))
    write_json(record, parameters)
    print(f"{dataset.root}: drew {len(videos)} videos of {given.num_images} images with masks")
    return 0


def _save(path: Path, pixels) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


if __name__ == "__main__":
    run_main(main)
