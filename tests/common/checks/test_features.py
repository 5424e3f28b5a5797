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


def test_features_of_another_file_of_the_same_size(cohort):
    size = cohort.video("BL_01").stat().st_size
    cohort.add_features("BL_01", video_bytes=size, fingerprint="ab")
    finding = cohort.only()
    assert (finding.severity, finding.video) == ("warning", "BL_01")
    assert "made from another file than" in finding.message


def test_what_was_mended_or_accepted_when_a_video_was_decoded(cohort):
    sound = {"promised_frames": None, "header_frames": None, "times_mended": {}, "notes": [], "damage": None}
    count = len(cohort.labels("BL_01"))
    for video, changes in (
        ("BL_01", {"damage": "60 frames promised, 50 decoded"}),
        ("BL_03", {"times_mended": {"step back": 1, "repeated": 3}}),
        ("BL_05", {"notes": ["stream 1 is read, not stream 0 (h264, 64 x 48)"]}),
        ("BL_07", {"header_frames": 6 * count}),
        ("BL_09", {}),
    ):
        cohort.add_features(video, decoding=sound | changes)
    found = {finding.video: (finding.severity, finding.message) for finding in cohort.findings()}
    assert found.keys() == {"BL_01", "BL_03", "BL_05", "BL_07"}
    assert found["BL_01"][0] == "warning"
    assert "a damaged video: 60 frames promised, 50 decoded" in found["BL_01"][1]
    assert "times of frames were mended (1 step back, 3 repeated)" in found["BL_03"][1]
    assert "stream 1 is read, not stream 0" in found["BL_05"][1]
    assert f"{6 * count} frames promised" in found["BL_07"][1]


def test_what_two_encoders_features_tell_of_a_video_is_one_finding(cohort):
    told = {"notes": ["stream 1 is read, not stream 0 (h264, 64 x 48)"], "times_mended": {"repeated": 3}}
    for folder in ("Made", "Other"):
        cohort.add_features("BL_05", encoder=folder, decoding=told)
    messages = [finding.message for finding in cohort.findings()]
    assert len(messages) == 2
    assert all(message.startswith("BL_05: features/Made, features/Other: ") for message in messages)
