"""The whole audit: a sound data set gives no finding, and nothing in it is changed."""

from common.base import paths
from common.base.entries import CHALLENGE_HEADER
from common.checks.dataset import audit_dataset
from tests.common.cohort import NAMES, VALIDATION, make_and_write_folds, write_manifest


def test_a_clean_data_set_with_folds_features_and_honest_pretraining_gives_no_finding(cohort):
    make_and_write_folds(cohort)
    for encoder in ("Made", "Other@fp16"):
        for video in NAMES + VALIDATION:
            size = cohort.video(video).stat().st_size
            cohort.add_features(video, encoder=encoder, video_bytes=size, encoder_name=encoder)
    entry = {"corpus": "other", "name": "BL_01", "size_bytes": 1, "fingerprint": "0" * 64}
    write_manifest(paths.pretrained_backbone("dinov3"), [entry])
    assert cohort.findings() == []


def test_a_data_set_of_features_alone_gives_no_finding(made):
    """What other releases hold: no videos at all."""
    assert audit_dataset(made.dataset, min_seconds=0.1).findings == []


def test_labels_in_the_challenges_form_give_no_finding(cohort):
    text = f"{CHALLENGE_HEADER}\n{' '.join(cohort.labels('BL_01'))}\n"
    cohort.label_file("BL_01").write_text(text)
    assert cohort.findings() == []


def test_nothing_is_changed(cohort):
    make_and_write_folds(cohort)
    cohort.add_features("BL_01", frames=5)
    before = {path: path.stat().st_mtime_ns for path in cohort.dataset.root.rglob("*")}
    cohort.findings()
    assert {path: path.stat().st_mtime_ns for path in cohort.dataset.root.rglob("*")} == before
