"""`dataset.yaml`: read strictly, held against the data set, refused where a key would be passed over."""

import unicodedata

import pytest

from common.base import paths
from common.base.runtime import UserError
from common.dataset.description import DatasetDescription, features_owner, read_description, read_phases, require_task
from common.dataset.phases import IGNORED
from common.features.config import ExtractionConfig

MAPPING = ("background", "incision", "wash", "Größe")


@pytest.fixture
def dataset(workspace):
    """A data set of four phases, without anything else, and another one beside it."""
    for name in ("set", "other"):
        (workspace / "data" / name).mkdir()
        lines = "".join(f"{index} {phase}\n" for index, phase in enumerate(MAPPING))
        (workspace / "data" / name / "mapping.txt").write_text(lines, encoding="utf-8")
    return paths.dataset("set")


def describe(dataset: paths.Dataset, text: str | bytes) -> paths.Dataset:
    """Write the data set's `dataset.yaml`."""
    dataset.description.write_bytes(text if isinstance(text, bytes) else text.encode())
    return dataset


def complaint(dataset: paths.Dataset) -> str:
    """The error of reading the description: one line that names the file."""
    with pytest.raises(UserError) as error:
        read_description(dataset)
    message = str(error.value)
    assert message.startswith(str(dataset.description))
    assert "\n" not in message
    return message


# --- what is read -------------------------------------------------------------------------------------------------


def test_without_a_file_all_is_as_usual(dataset):
    assert read_description(dataset) == DatasetDescription()
    assert DatasetDescription().background == "background"


def test_every_key_is_read(dataset):
    text = """
task: clips
label_fps: 1
frames_fps: 25
feature_fps: 2.5e0
background: wash
ignored: [background, incision]
release_names: {wash: Washing of the lens}
features_of: other
source: https://example.org/release
licence: CC BY 4.0
ids: {BL_1: "0012"}
"""
    assert read_description(describe(dataset, text)) == DatasetDescription(
        task="clips",
        label_fps=1.0,
        frames_fps=25.0,
        feature_fps=2.5,
        background="wash",
        ignored=("background", "incision"),
        release_names={"wash": "Washing of the lens"},
        features_of="other",
        source="https://example.org/release",
        licence="CC BY 4.0",
        ids={"BL_1": "0012"},
    )


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(dataset):
    assert read_description(describe(dataset, b"\xef\xbb\xbflabel_every: 5\r\nbackground: null\r\n")).label_every == 5


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_phases_and_videos_are_found_however_accents_are_encoded(dataset, form):
    text = unicodedata.normalize(form, "ignored: [Größe]\nids: {Fall_é: a}\n")
    description = read_description(describe(dataset, text))
    assert description.ignored == ("Größe",)
    assert description.ids == {unicodedata.normalize("NFC", "Fall_é"): "a"}


def test_a_data_set_without_a_mapping_has_no_phases_to_compare_with(dataset):
    dataset.mapping.unlink()
    assert read_description(describe(dataset, "ignored: [anything]")).ignored == ("anything",)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lable_fps: 1", "unknown key 'lable_fps'; did you mean 'label_fps'?; known: label_fps, label_every, frames_fps"),
        ("path: x", "unknown key 'path'; known: label_fps"),
        ("label_fps: 1\nlabel_fps: 2", "line 2: the key 'label_fps' is there twice"),
        ("label_fps: fast", "label_fps: expected float, found 'fast'"),
        ("label_fps: 0", "label_fps must be greater than 0 and at most 1000"),
        ("label_fps: -25", "found -25.0"),
        ("label_fps: .nan", "found nan"),
        ("feature_fps: .inf", "found inf"),
        ("frames_fps: yes", "frames_fps: expected float, found True"),
        ("label_every: 0", "label_every must be at least 1 decoded frames, found 0"),
        ("label_every: 2.5", "label_every: expected int, found 2.5"),
        ("ignored: background", "ignored: expected list, found 'background'"),
        ("ignored: [no]", "ignored: expected str, found False; write it in quotes"),
        ("background: 7", "background: expected str, found 7; write it in quotes"),
        ("ids: [a, b]", "ids: expected dict, found ['a', 'b']"),
        ("ids: {BL_1: 12}", "ids: expected str, found 12; write it in quotes"),
        ("label_fps: 1\nlabel_every: 25", "expected label_fps or label_every, found both (1 and 25)"),
        ("ignored: [wsh]", "ignored: expected phases of mapping.txt, found 'wsh'; did you mean 'wash'?; known: background,"),
        ("background: sky", "background: expected phases of mapping.txt, found 'sky'"),
        ("ignored: [wash, wash]", "ignored: expected each name once, found wash several times"),
        ("ignored: [background, incision, wash, Größe]", "found all of them: nothing is left to learn"),
        ("features_of: set", "features_of: expected another data set, found this one"),
        ("features_of: ''", "features_of: expected the name of a data set, found nothing"),
        ("features_of: nowhere", "no data set 'nowhere'"),
        ("", "expected 'key: value' lines, found NoneType"),
        ("# nothing\n", "found NoneType"),
        ("- label_fps: 1", "expected 'key: value' lines, found list"),
        ("label_fps", "expected 'key: value' lines, found str"),
        ("label_fps: [1", "line 1: expected"),
        ("source: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_was_expected_and_found(dataset, text, expected):
    assert expected in complaint(describe(dataset, text))


@pytest.mark.parametrize(
    ("content", "expected"),
    [("label_fps: 1".encode("utf-16"), "UTF-16"), (b"\x89PNG\0\xff", "no text"), (b"source: \xe9", "no text in UTF-8")],
)
def test_a_file_that_is_no_text_is_named(dataset, content, expected):
    assert expected in complaint(describe(dataset, content))


def test_a_link_to_nothing_and_a_folder_do_not_count_as_an_absent_file(dataset):
    dataset.description.symlink_to("gone.yaml")
    assert "no such configuration file" in complaint(dataset)
    dataset.description.unlink()
    dataset.description.mkdir()
    assert "found a folder" in complaint(dataset)


@pytest.mark.parametrize("name", ["dataset.yml", "Dataset.yaml"])
def test_a_file_that_is_almost_called_so_is_not_passed_over(dataset, name):
    (dataset.root / name).write_text("label_fps: 1\n")
    with pytest.raises(UserError, match=f"expected dataset.yaml, found {name}, which nobody reads; rename it"):
        read_description(dataset)


def test_features_of_a_set_that_has_those_of_another(dataset):
    describe(paths.dataset("other"), "features_of: set")
    assert "other, which has those of set; name that one" in complaint(describe(dataset, "features_of: other"))


# --- keys that nobody acts on yet ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "background", "number"),
    [("source: a", "background", 0), ("background: wash", "wash", 2), ("background: null", None, None)],
)
def test_phases_know_the_background_that_the_data_set_names(dataset, text, background, number):
    phases = read_phases(describe(dataset, text))
    assert (phases.background, phases.background_id) == (background, number)


def test_there_is_no_background_where_the_mapping_has_none(dataset):
    dataset.mapping.write_text("0 a\n1 b\n")
    assert read_phases(dataset).background is None


def test_labels_without_a_phase_have_a_word_that_the_mapping_need_not_have(dataset):
    describe(dataset, "ignored: [wash, unlabelled]")
    mapping = read_phases(dataset)
    assert mapping.label_ids["unlabelled"] == mapping.label_ids["wash"] == IGNORED
    assert "unlabelled" not in mapping.ids
    dataset.mapping.write_text("0 wash\n1 cut\n2 unlabelled\n")  # as importers of earlier versions wrote it
    assert read_phases(dataset).label_ids == {"wash": IGNORED, "cut": 1, "unlabelled": IGNORED}


def test_features_of_another_set_are_looked_for_there_and_extracted_there(made, workspace):
    (workspace / "data" / "steps").mkdir()
    (workspace / "data" / "steps" / "mapping.txt").write_text("0 a\n1 b\n")
    steps = describe(paths.dataset("steps"), "features_of: made")
    assert features_owner(steps).root == made.dataset.root
    assert features_owner(made.dataset) == made.dataset
    from common.features.extract import extract

    with pytest.raises(UserError, match="--dataset made"):
        extract(paths.model("ColorHistogram"), ExtractionConfig(dataset="steps"))


# --- tasks --------------------------------------------------------------------------------------------------------


def test_a_task_is_one_of_three(dataset):
    assert "expected one of multilabel, clips, segmentation, found 'masks'" in complaint(
        describe(dataset, "task: masks")
    )


@pytest.mark.parametrize(
    ("text", "idle"),
    [
        ("task: multilabel\nignored: [unlabelled]", "ignored: would have no effect with the task multilabel"),
        ("task: clips\nown_rule: cadis", "own_rule: would have no effect with the task clips"),
        ("task: segmentation\nmeasure: top1", "measure: would have no effect with the task segmentation"),
        ("own_rule: cadis\nmeasure: top1", "own_rule, measure: would have no effect with the task phases"),
    ],
)
def test_a_key_that_a_task_has_no_use_for_is_an_error(text, idle, dataset):
    with pytest.raises(UserError, match=rf"dataset\.yaml: {idle}; leave it out"):
        require_task(describe(dataset, text), None, "multilabel", "clips", "segmentation")


def test_a_command_takes_the_data_sets_of_its_task_alone(dataset):
    assert require_task(describe(dataset, "task: clips"), "multilabel", "clips").task == "clips"
    with pytest.raises(UserError, match=r"dataset\.yaml: task: expected segmentation, found clips, .*common\.probe"):
        require_task(dataset, "segmentation")
    with pytest.raises(UserError, match=r"expected none \(phases\), found clips"):
        read_phases(dataset)
    with pytest.raises(UserError, match=r"expected clips, found none \(phases\), which is for python -m common\.train"):
        require_task(describe(dataset, "label_fps: 1"), "clips")
