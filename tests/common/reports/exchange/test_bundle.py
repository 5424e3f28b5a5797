"""Bundles: all numbers come out again, changes are found, and nothing of this machine is in one."""

import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest

from common.base import paths
from common.base.runtime import UserError
from common.reports.benchmark.table import BenchmarkSet, make_benchmark
from common.reports.comparison import make_report
from common.reports.exchange.bundle import CONTENT, verify, write_bundle
from common.reports.exchange.foreign import read_foreign
from common.scoring.protocols import PROTOCOLS
from tests.common.reports.exchange.conftest import PHASES

ALL = list(PROTOCOLS.values())


@pytest.fixture
def report(dataset, predictions):
    rows = [read_foreign(f"Row{wrong}", predictions(wrong), dataset, ["1", "2"]) for wrong in (5, 20)]
    return make_report(dataset, rows, ALL)


@pytest.fixture
def bundle(report, tmp_path):
    return write_bundle(tmp_path / "out.zip", [report], benchmark=None, segments=None)


def rewritten(bundle, changes):
    """The same archive with some files of other content; None leaves a file out."""
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    target = bundle.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, before in content.items():
            after = changes[name](before) if callable(changes.get(name)) else changes.get(name, before)
            if after is not None:
                archive.writestr(name, after)
    return target


def with_content(change):
    """A change of `bundle.json`."""

    def apply(before):
        content = json.loads(before)
        change(content)
        return json.dumps(content).encode()

    return {CONTENT: apply}


def test_every_number_comes_out_again(bundle):
    found = verify(bundle, paths.dataset)
    assert found.differences == []
    # of each protocol and measure: of two rows 5 numbers and 2 splits, 6 videos each, and of one pair 3
    assert found.num_equal == 4 * 8 * (2 * (5 + 2 + 6) + 3)


def test_rows_tested_against_one_come_out_again(dataset, predictions, tmp_path):
    rows = [read_foreign(f"Row{wrong}", predictions(wrong), dataset, ["1", "2"]) for wrong in (5, 20, 30)]
    report = make_report(dataset, rows, ALL, against="Row20 (made elsewhere)")
    found = verify(write_bundle(tmp_path / "out.zip", [report], benchmark=None, segments=None), paths.dataset)
    assert found.differences == []
    assert found.num_equal == 4 * 8 * (3 * (5 + 2 + 6) + 2 * 3)  # two pairs of three rows


def test_letters_of_an_earlier_version_are_no_difference(bundle):
    """It gave letters where no test could have told encoders apart, and recorded no `against`."""

    def earlier(content):
        del content["against"]
        content["numbers"] |= {place: "a" for place in content["numbers"] if place.endswith(": tied")}

    found = verify(rewritten(bundle, with_content(earlier)), paths.dataset)
    assert found.differences == []
    assert found.num_equal == 4 * 8 * (2 * (4 + 2 + 6) + 3)


def test_labels_that_changed_are_named_with_what_they_change(bundle, dataset):
    labels = dataset.ground_truth / "BN_1.txt"
    labels.write_text(labels.read_text().replace("incision", "wash", 10))
    found = verify(bundle, paths.dataset)
    assert found.differences[0] == "set: other labels of 1 video: BN_1"
    assert any("Accuracy: mean" in text and "in the bundle" in text for text in found.differences)


def test_patients_that_changed_are_named(bundle, dataset):
    dataset.patients.write_text("video,patient\nBL_1,A\nBL_2,A\n")
    found = verify(bundle, paths.dataset)
    assert any("other patients.csv" in text for text in found.differences)


def test_a_prediction_that_was_changed_is_found(bundle):
    changed = rewritten(bundle, {"0/0/1/2.txt": lambda text: text.replace(b"wash", b"incision", 1)})
    with pytest.raises(UserError, match=r"0/0/1/2.txt: not the file that the bundle was made with"):
        verify(changed, paths.dataset)


def test_a_prediction_changed_with_its_hash_changes_the_numbers(bundle):
    text = "".join(f"{PHASES[1]}\n" for _ in range(100)).encode()

    def new_hash(content):
        content["sets"][0]["rows"][0]["splits"][1]["videos"][2]["text"] = hashlib.sha256(text).hexdigest()

    changed = rewritten(bundle, {"0/0/1/2.txt": text} | with_content(new_hash))
    found = verify(changed, paths.dataset)
    assert any("Row5 (made elsewhere), Accuracy: mean" in difference for difference in found.differences)


def test_a_number_that_was_typed_is_found(bundle):
    def better(content):
        key = "set, challenge, Row20 (made elsewhere), Accuracy: mean"
        content["numbers"][key] += 0.05

    found = verify(rewritten(bundle, with_content(better)), paths.dataset)
    (difference,) = found.differences
    assert difference.startswith(
        "set, challenge, Row20 (made elsewhere), Accuracy: mean: 0.825 in the bundle, 0.775 here"
    )


def test_ranks_over_data_sets_are_verified_too(report, tmp_path):
    made = make_benchmark([BenchmarkSet(report, {"Row5 (made elsewhere)": ["saw one"]})], ALL, [])
    path = write_bundle(tmp_path / "out.zip", [report], benchmark=made, segments=None)
    assert verify(path, paths.dataset).differences == []


def test_only_numbers_records_and_predictions_are_in_it(bundle, workspace, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        content = archive.read(CONTENT).decode()
    # two rows of two folds of three videos, two files each
    assert len(names) == 1 + 2 * 2 * 3 * 2
    assert str(workspace) not in content
    assert str(tmp_path) not in content


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({CONTENT: None}, "bundle.json is missing"),
        ({CONTENT: b"{"}, "bundle.json: not a readable JSON file"),
        ({CONTENT: b"[]"}, "bundle.json"),
        (with_content(lambda c: c.update(format=99)), "a bundle of format 99"),
        (with_content(lambda c: c.update(protocols=["other"])), "unknown protocols"),
        (with_content(lambda c: c["sets"][0].update(phases=["a"])), "made with other phases"),
        (with_content(lambda c: c["sets"][0].update(dataset="none")), "no data set 'none'"),
        (
            with_content(lambda c: c["sets"][0]["rows"][0]["splits"][0].update(record={})),
            "not the record of a finished run",
        ),
        ({"0/1/0/0.npy": None}, "0/1/0/0.npy is missing"),
        ({"0/0/0/0.txt": b"x" * 10_000_000}, "expected at most"),
    ],
)
def test_damaged_bundles_are_named(bundle, changes, message):
    with pytest.raises(UserError, match=message):
        verify(rewritten(bundle, changes), paths.dataset)


def test_what_is_no_archive_is_refused(tmp_path, dataset):
    path = tmp_path / "no.zip"
    path.write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="not a bundle"):
        verify(path, paths.dataset)
    with pytest.raises(UserError, match="no such file"):
        verify(tmp_path / "absent.zip", paths.dataset)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "out.zip")
    with pytest.raises(UserError, match=r"out\.zip: expected a file, found a pipe"):
        verify(tmp_path / "out.zip", paths.dataset)


def test_a_member_that_is_no_compressed_data_is_named(bundle):
    content = bytearray(bundle.read_bytes())
    start = content.index(b"0/0/0/0.txt") + len("0/0/0/0.txt")  # of its data, behind its head
    content[start] = 0xFF
    bundle.write_bytes(content)
    with pytest.raises(UserError, match=r"out\.zip, 0/0/0/0\.txt: damaged"):
        verify(bundle, paths.dataset)


def test_objects_in_an_array_are_never_read(bundle):
    stored = io.BytesIO()
    np.save(stored, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    content = stored.getvalue()

    def new_hash(described):
        described["sets"][0]["rows"][0]["splits"][0]["videos"][0]["probabilities"] = hashlib.sha256(content).hexdigest()

    with pytest.raises(UserError, match="npy"):
        verify(rewritten(bundle, {"0/0/0/0.npy": content} | with_content(new_hash)), paths.dataset)
