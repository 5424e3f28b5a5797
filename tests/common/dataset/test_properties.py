"""Files of a data set in every form that is read, drawn: what was written comes back; anything else is a `UserError`."""

import codecs
import csv
import io
import unicodedata
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.base.entries import CHALLENGE_HEADER, VIDEO_SUFFIXES, nfc, reason_against, same_name
from common.base.paths import Dataset
from common.base.runtime import UserError
from common.dataset.kfold import (
    make_folds,
    nested_subset,
    prefix_stratum,
    read_bundle,
    read_folds,
    stratified_order,
    write_folds,
)
from common.dataset.phases import UNLABELLED, PhaseMapping, read_labels, read_mapping, write_prediction
from common.dataset.tables import read_table

characters = st.characters(exclude_categories=["Cs"])
phase_names = st.text(characters, min_size=1, max_size=12).filter(
    lambda name: len(name.split()) == 1 and name.strip() == name and name.isprintable() and name != UNLABELLED
)
phases = st.lists(phase_names, min_size=1, max_size=8, unique=True)
video_names = st.text(characters, min_size=1, max_size=12).map(nfc).filter(lambda name: reason_against(name) is None)
videos = st.lists(video_names, min_size=1, max_size=12, unique_by=same_name)
simple_videos = st.lists(
    st.tuples(st.sampled_from(["BL", "BN", "SD"]), st.integers(0, 40)).map(lambda parts: f"{parts[0]}_{parts[1]}"),
    min_size=1,
    max_size=30,
    unique=True,
)
line_ends = st.sampled_from(["\n", "\r\n", "\r"])
marks = st.sampled_from([b"", codecs.BOM_UTF8])
some_seeds = st.integers(0, 99)


def refusal(read, path):
    """What a reader says against a file; nothing where it reads it."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return ""


def write(path, mark, text):
    path.write_bytes(mark + text.encode())
    return path


@given(phases, st.randoms(use_true_random=False), line_ends, marks)
def test_a_mapping_is_read_in_any_order_of_its_lines(tmp_path, names, random, end, mark):
    lines = [f"{number} {name}" for number, name in enumerate(names)] + [""] * 2
    random.shuffle(lines)
    path = write(tmp_path / "mapping.txt", mark, end.join(lines) + end)
    assert read_mapping(path).names == tuple(names)


@given(phases, st.data(), line_ends, marks, st.booleans())
def test_labels_are_read_in_both_forms(tmp_path, names, data, end, mark, is_challenge):
    mapping = PhaseMapping(tuple(names))
    ids = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=30))
    words = [names[index] for index in ids]
    text = f"{CHALLENGE_HEADER}{end}{' '.join(words)}" if is_challenge else end.join(words)
    path = write(tmp_path / "labels.txt", mark, text + data.draw(st.sampled_from(["", end, end * 3])))
    assert read_labels(path, mapping).tolist() == ids


@given(phases, st.data())
def test_a_prediction_comes_back_as_it_was_written(tmp_path, names, data):
    mapping = PhaseMapping(tuple(names))
    ids = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=30))
    write_prediction(tmp_path / "prediction.txt", np.array(ids), mapping)
    assert read_labels(tmp_path / "prediction.txt", mapping).tolist() == ids


@given(videos, st.data(), line_ends, marks)
def test_a_list_of_videos_is_read_in_every_form_that_circulates(tmp_path, names, data, end, mark):
    suffixes = st.sampled_from([".txt", ".TXT", *VIDEO_SUFFIXES])
    prefixes = st.sampled_from(["", "groundTruth/", "/data/SICS155/videos/", "C:\\data\\"])
    composed = st.sampled_from(["NFC", "NFD"])
    lines = [
        data.draw(prefixes) + unicodedata.normalize(data.draw(composed), name) + data.draw(suffixes) for name in names
    ]
    head = data.draw(st.sampled_from([[], ["#bundle"], ["#Bundle", ""]]))
    path = write(tmp_path / "list.bundle", mark, end.join([*head, *lines]) + end)
    assert read_bundle(path) == names
    write(path, mark, end.join([*head, *lines, lines[0]]) + end)
    with pytest.raises(UserError, match="again, which is in line"):
        read_bundle(path)


@given(videos.filter(lambda names: len(names) > 1), some_seeds)
@settings(max_examples=20)
def test_folds_of_any_names_are_read_as_they_were_written(tmp_path_factory, names, seed):
    dataset = Dataset(tmp_path_factory.mktemp("data"))
    dataset.ground_truth.mkdir()
    for name in names:
        (dataset.ground_truth / f"{name}.txt").write_text("background\n")
    folds = make_folds(names, 2, seed=seed)
    write_folds(dataset, folds, seed=seed, stratify="prefix", patients={})
    assert read_folds(dataset) == folds


@given(simple_videos.filter(lambda names: len(names) > 4), st.integers(2, 5), some_seeds, st.randoms())
def test_folds_deal_every_video_once_and_evenly_whatever_their_order(names, num_folds, seed, random):
    folds = make_folds(names, num_folds, seed=seed)
    assert sorted(video for fold in folds for video in fold) == sorted(names)
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for stratum in {prefix_stratum(name) for name in names}:
        counts = [sum(prefix_stratum(name) == stratum for name in fold) for fold in folds]
        assert max(counts) - min(counts) <= 1
    shuffled = random.sample(names, len(names))
    assert make_folds(shuffled, num_folds, seed=seed) == folds


@given(simple_videos, st.data(), some_seeds)
def test_folds_never_part_a_patient(names, data, seed):
    patients = {name: data.draw(st.sampled_from("ABCDEFG")) for name in names if data.draw(st.booleans())}
    num_patients = len(set(patients.values())) + len(names) - len(patients)
    if num_patients < 2:
        with pytest.raises(UserError, match="as many patients"):
            make_folds(names, 2, seed=seed, patients=patients)
        return
    folds = make_folds(names, 2, seed=seed, patients=patients)
    assert Counter(video for fold in folds for video in fold) == Counter(names)
    first, second = ({patients.get(video) for video in fold} - {None} for fold in folds)
    assert not first & second


@given(simple_videos, some_seeds, st.floats(0, 1), st.floats(0, 1))
def test_smaller_parts_of_a_training_set_lie_in_larger_ones(names, seed, one, other):
    small, large = (nested_subset(names, share, seed=seed) for share in sorted((one, other)))
    assert set(small) <= set(large)
    assert small == [name for name in names if name in small]
    assert len(large) == max(1, round(max(one, other) * len(names)))


@given(simple_videos, some_seeds)
def test_every_beginning_of_the_order_is_stratified(names, seed):
    order = stratified_order(names, seed=seed)
    assert sorted(order) == sorted(names)
    sizes = Counter(map(prefix_stratum, names))
    most = 1 - 1 / max(2 * len(sizes) - 2, 2)
    for length in range(1, len(order) + 1):
        taken = Counter(map(prefix_stratum, order[:length]))
        shares = {stratum: length * size / len(names) for stratum, size in sizes.items()}
        assert all(abs(taken[stratum] - share) <= most + 1e-9 for stratum, share in shares.items())


@given(
    st.lists(st.tuples(*[st.text(characters.filter(lambda each: each not in "\0\r"), max_size=8)] * 3), max_size=8),
    st.sampled_from(",;\t"),
    line_ends,
    marks,
    st.booleans(),
)
def test_a_table_comes_back_with_any_delimiter(tmp_path, rows, delimiter, end, mark, are_all_quoted):
    stream = io.StringIO()
    quoting = csv.QUOTE_ALL if are_all_quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n", quoting=quoting)
    writer.writerows([("Patient", "note", "VIDEO"), *rows])
    path = write(tmp_path / "patients.csv", mark, stream.getvalue().replace("\n", end))
    found = [tuple(row.values()) for _, row in read_table(path, ("video", "patient"))]
    assert found == [
        (video.strip(), patient.strip()) for patient, note, video in rows if (patient + note + video).strip()
    ]


@given(st.one_of(st.binary(max_size=200), st.text(st.sampled_from('01 ab#\n\t,;"{[<\r\ufeff'), max_size=60)))
def test_whatever_else_a_file_holds_is_read_or_refused_in_one_line(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    readers = (
        read_mapping,
        read_bundle,
        lambda file: read_labels(file, PhaseMapping(("a", "b"))),
        lambda file: list(read_table(file, ("a", "b"))),
    )
    refusals = [message for read in readers if (message := refusal(read, path))]
    assert all(message.startswith(str(path)) and "\n" not in message for message in refusals)
