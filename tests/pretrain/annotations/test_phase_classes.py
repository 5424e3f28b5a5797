"""The table of Stage 2's classes: what it holds, how names are matched, and what a damaged one says."""

from pathlib import Path

import pytest

from common.base.runtime import UserError
from pretrain.annotations.phase_classes import PhaseClasses, read_phase_classes


@pytest.fixture(scope="module")
def classes() -> PhaseClasses:
    return read_phase_classes()


def name_of(classes: PhaseClasses, dataset: str, phase: str) -> str | None:
    index = classes.class_of(dataset, phase)
    return None if index is None else classes.names[index]


@pytest.mark.parametrize(
    ("cataract101", "cataracts1k", "name"),
    [
        ("Incision", "Incision", "incision"),
        ("Viscous agent injection", "Viscoelastic", "viscous_agent_injection"),
        ("Rhexis", "Capsulorhexis", "rhexis"),
        ("Hydrodissection", "Hydrodissection", "hydrodissection"),
        ("Phacoemulsificiation", "Phacoemulsification", "phacoemulsification"),
        ("Irrigation and aspiration", "Irrigation/Aspiration", "irrigation_aspiration"),
        ("Capsule polishing", "Capsule Pulishing", "capsule_polishing"),
        ("Lens implant setting-up", "Lens Implantation", "lens_implantation"),
        ("Viscous agent removal", "Viscoelastic_Suction", "viscous_agent_removal"),
        ("Tonifying and antibiotics", "Tonifying/Antibiotics", "tonifying_and_antibiotics"),
        ("Tonifying and antibiotics", "Anterior_Chamber Flushing", "tonifying_and_antibiotics"),
        ("unlabelled", "unlabelled", None),
    ],
)
def test_phases_of_the_two_data_sets_share_classes(classes, cataract101, cataracts1k, name):
    assert name_of(classes, "Cataract-101", cataract101) == name_of(classes, "Cataracts-1K", cataracts1k) == name


def test_classes_of_one_data_set_only(classes):
    assert name_of(classes, "Cataracts-1K", "idle") == "idle"
    assert name_of(classes, "Cataracts-1K", "Lens positioning") == "lens_positioning"
    of_101 = {name_of(classes, "Cataract-101", phase) for phase in classes.phases("Cataract-101")}
    assert set(classes.names) - of_101 == {"idle", "lens_positioning"}


def test_every_class_is_used_and_counts_are_the_releases(classes):
    used = {classes.class_of(dataset, phase) for dataset in classes.datasets for phase in classes.phases(dataset)}
    assert used == {None, *range(len(classes.names))}
    assert len(classes.phases("Cataract-101")) == 1 + 10
    assert len(classes.phases("Cataracts-1K")) == 2 + 12


@pytest.mark.parametrize(
    "spelling", ["Viscoelastic_Suction", "viscoelastic suction", "VISCOELASTIC-SUCTION", " ViscoelasticSuction"]
)
def test_case_and_punctuation_do_not_matter(classes, spelling):
    assert name_of(classes, "Cataracts-1K", spelling) == "viscous_agent_removal"


def test_names_in_mapping_txt_are_understood(classes):
    for dataset in classes.datasets:
        names = classes.mapping(dataset).names
        assert not any(" " in name for name in names)
        for name, phase in zip(names, classes.phases(dataset), strict=True):
            assert classes.class_of(dataset, name) == classes.class_of(dataset, phase)


def test_ids_of_cataract_101_are_those_of_its_release(classes, reference_data):
    lines = (reference_data / "data" / "cataract101" / "phases.csv").read_text().splitlines()[1:]
    released = {int(line.split(";")[0]): line.split(";")[1] for line in lines}
    assert dict(enumerate(classes.phases("Cataract-101"))) == {0: "unlabelled"} | released


def test_unknown_names_name_the_nearest(classes):
    with pytest.raises(
        UserError, match=r"unknown phase 'Capsulorexis' of Cataracts-1K; nearest known phase: 'Capsulorhexis'"
    ):
        classes.class_of("Cataracts-1K", "Capsulorexis")
    with pytest.raises(UserError, match=r"unknown phase 'xyz' of Cataract-101; known: unlabelled, Incision, .*yaml"):
        classes.class_of("Cataract-101", "xyz")
    with pytest.raises(UserError, match=r"no data set 'SICS155'; known: Cataract-101, Cataracts-1K"):
        classes.class_of("SICS155", "Incision")


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    return path


def test_another_table(tmp_path):
    classes = read_phase_classes(table(tmp_path, "classes: [a, b]\ndatasets: {X: {One: b, Two: null}}\n"))
    assert (classes.class_of("X", "one"), classes.class_of("X", "two")) == (1, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a]\ndatasets: {X: {One: b}}\n", r"classes.yaml, X, One: class 'b' is not listed"),
        ("classes: [a, a]\ndatasets: {}\n", r"classes.yaml, classes: 'a' is there twice"),
        ("classes: [a]\ndatasets: {X: {A b: a, a_B: a}}\n", r"classes.yaml, X: 'ab' is there twice"),
        ("classes: [a]\n", r"classes.yaml: missing key 'datasets'"),
        ("classes: [a]\ndatasets: {}\nclases: []\n", r"unknown key 'clases'; did you mean 'classes'"),
    ],
)
def test_damaged_tables(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_phase_classes(table(tmp_path, text))
