"""The parts of `make demo-loop` that play the person: dealing, correcting, comparing."""

import importlib
import json

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.dataset.annotations.annotated import KnownPhases, phases_of
from common.dataset.annotations.known_formats import read_annotations
from common.dataset.annotations.tiling import tile
from common.video.timeline import Timeline

PHASES = ("background", "incision", "wash")
TRUE = np.repeat([0, 1, 2, 0], [10, 10, 5, 15])
PREDICTED = [[0, 11, "background"], [11, 20, "incision"], [20, 28, "wash"], [28, 40, "background"]]


@pytest.fixture(scope="module")
def loop_sample(checkout):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(checkout / "data"))
        yield importlib.import_module("loop_sample")


@pytest.fixture
def sets(workspace):
    """The sample's data set and that of the loop, which has nothing yet."""
    sample, loop = (paths.Dataset(workspace / "data" / name) for name in ("sample", "loop"))
    sample.ground_truth.mkdir(parents=True)
    return sample, loop


@pytest.fixture
def handed_out(sets, loop_sample):
    """One video of the sample as `common.prelabel` hands it out."""
    sample, loop = sets
    (sample.ground_truth / "BL_1.txt").write_text("".join(f"{PHASES[phase]}\n" for phase in TRUE))
    for folder in (loop_sample.unlabelled(loop), loop_sample.annotations(loop)):
        folder.mkdir(parents=True)
    (loop_sample.unlabelled(loop) / "BL_1.mp4").write_bytes(b"video")
    loop.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(PHASES)))
    video = {"fingerprint": "", "timeline": Timeline.every_frame(40, 10).to_json(), "segments": PREDICTED}
    record = {"format": 1, "head": "a head", "dataset": "loop", "phases": list(PHASES), "videos": {"BL_1": video}}
    paths.prelabel_record(loop_sample.annotations(loop)).write_text(json.dumps(record))
    return sets


def test_what_was_handed_out_is_put_right_to_the_frame_by_counted_operations(loop_sample, handed_out, capsys):
    sample, loop = handed_out
    loop_sample.correct(sample, loop, "Base")
    (found,) = read_annotations(loop_sample.annotations(loop) / "BL_1.eaf", KnownPhases(PHASES), "elan")
    tiling = tile(phases_of(found, KnownPhases(PHASES)), np.arange(41) / 10)
    assert tiling.segments == ((0, 10, "background"), (10, 20, "incision"), (20, 25, "wash"), (25, 40, "background"))
    # boundaries 11 and 28 belong at 10 and 25
    assert "1 video corrected by the truth: 0 delete, 0 insert, 0 relabel, 2 move" in capsys.readouterr().out


def test_a_folder_of_somebody_else_is_left_alone(loop_sample, sets):
    sample, loop = sets
    loop.videos.mkdir(parents=True)
    (loop.videos / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match="no folder of this demo; move it away"):
        loop_sample.prepare(sample, loop)
    assert (loop.videos / "mine.mp4").read_bytes() == b"mine"


def test_a_sample_that_is_too_small_is_named_and_nothing_is_made(loop_sample, sets):
    sample, loop = sets
    (sample.ground_truth / "BL_1.txt").write_text("background\n")
    with pytest.raises(UserError, match="1 labelled videos, expected more than 15"):
        loop_sample.prepare(sample, loop)
    assert not loop.root.exists()
