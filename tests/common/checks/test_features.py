"""Feature files that cannot be used, and those made in another way than their neighbours."""

from tests.common.cohort import NAMES


def test_features_made_in_another_way_than_their_neighbours(cohort):
    for video in NAMES[:5]:
        cohort.add_features(video)
    cohort.add_features(NAMES[5], pooling="cls")
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video) == ("error", "features", NAMES[5])
    assert "features/Made was made in another way than most: pooling: 'cls' here, 'made' in 5 others" in finding.message


def test_the_same_weights_in_another_place_are_the_same_way(cohort):
    for number, video in enumerate(NAMES[:3]):
        cohort.add_features(video, weights={"source": f"/disk{number}/w.pt", "file": "w.pt", "sha256": "ab"})
    assert cohort.findings() == []


def test_a_damaged_feature_file_does_not_stop_the_others(cohort):
    cohort.add_features("BL_01").write_bytes(b"\x93NUMPY")
    cohort.add_features("BL_03", frames=5)
    assert cohort.audit() == [("error", "features", "BL_01"), ("error", "lengths", "BL_03")]


def test_features_of_a_video_that_was_replaced(cohort):
    cohort.add_features("BL_01", video_bytes=cohort.video("BL_01").stat().st_size + 1)
    finding = cohort.only()
    assert (finding.severity, finding.kind, finding.video) == ("warning", "features", "BL_01")
    assert "was replaced" in finding.advice
