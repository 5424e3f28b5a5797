"""The drawn set of masks: what it holds, that it is the same each time, and that it never replaces other data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.base.paths import CHECKOUT, Dataset
from common.dataset.description import require_task
from common.dataset.masks import masked_images, read_colour_image, read_mask, require_sizes
from common.dataset.phases import read_mapping
from common.dataset.split_lists import open_splits


def make(output: Path) -> subprocess.CompletedProcess[str]:
    """The set with one image a video."""
    command = [sys.executable, str(CHECKOUT / "data" / "make_masks.py"), "--output", str(output), "--num_images", "1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Dataset:
    output = tmp_path_factory.mktemp("made") / "masks"
    done = make(output)
    assert done.returncode == 0, done.stderr
    return Dataset(output)


@pytest.mark.slow
def test_it_is_a_data_set_of_masks_whose_test_groups_are_others(drawn):
    require_task(drawn, "segmentation")
    images = masked_images(drawn)
    require_sizes([one for group in images.values() for one in group])
    lists = open_splits(drawn, "drawn")
    train, test = lists.videos("train", 1), lists.videos("test", 1)
    assert (len(train), len(test)) == (10, 5)
    assert sorted([*train, *test]) == sorted(images)
    assert drawn.is_synthetic


@pytest.mark.slow
def test_masks_say_what_is_drawn(drawn):
    """The pupil is darker or redder than the white of the eye around it, lies inside the iris, and instruments occur."""
    classes = read_mapping(drawn.mapping).names
    pixels = np.zeros(len(classes), dtype=int)
    for (one,) in masked_images(drawn).values():
        ids, image = read_mask(one.mask, classes), read_colour_image(one.image).astype(int)
        pixels += np.bincount(ids.ravel(), minlength=len(classes))
        iris, pupil = (np.argwhere(ids == classes.index(name)) for name in ("iris", "pupil"))
        assert (iris.min(axis=0) < pupil.min(axis=0)).all()
        assert (iris.max(axis=0) > pupil.max(axis=0)).all()
        assert image[ids == 1].mean() < image[ids == 0].mean()
    assert (pixels > 0).all()


@pytest.mark.slow
def test_a_second_run_draws_nothing_and_the_same_is_drawn_elsewhere(drawn, tmp_path):
    assert "finished already" in make(drawn.root).stdout
    make(tmp_path / "again")
    for (one,) in masked_images(drawn).values():
        again = tmp_path / "again" / one.mask.relative_to(drawn.root)
        assert again.read_bytes() == one.mask.read_bytes()


def test_other_data_is_never_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = make(tmp_path)
    assert (done.returncode, (tmp_path / "mine.txt").read_text()) == (1, "mine")
    assert "is not empty and not a drawn set of masks; name another folder with --output" in done.stderr
