"""Clusters of clips: groups that are there are found, segments are joined, files are read back."""

import numpy as np
import pytest

from common.base.runtime import UserError
from pretrain.video_data.clusters import Clip, Segment, cluster_features, read_clusters, segments_of, write_clusters


def grouped_features(sizes=(300, 40, 10), dim=16, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Features around one direction for each group, and the group of each; lengths vary, which must not count."""
    random = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    features = 10 * np.eye(dim)[groups] + random.normal(0, 0.5, (len(groups), dim))
    return features * random.uniform(0.1, 10, (len(groups), 1)), groups


@pytest.mark.parametrize("levels", [(3,), (30, 3)])
def test_groups_are_found_however_unequal(levels):
    features, groups = grouped_features()
    labels = cluster_features(features, levels, seed=1)
    assert labels.shape == groups.shape
    assert len(set(zip(labels.tolist(), groups.tolist(), strict=True))) == 3  # one cluster a group, and the reverse


def test_clusters_are_the_same_for_the_same_seed():
    features, _ = grouped_features()
    assert np.array_equal(cluster_features(features, (20, 5), seed=3), cluster_features(features, (20, 5), seed=3))


@pytest.mark.parametrize("levels", [(3, 3), (2, 5), (350,), (5, 0)])
def test_levels_must_shrink(levels):
    features, _ = grouped_features()
    with pytest.raises(UserError, match="clusters for 350 clips: each must be fewer"):
        cluster_features(features, levels)


def test_features_must_be_finite():
    features, _ = grouped_features()
    features[5, 5] = np.nan
    with pytest.raises(UserError, match="not finite"):
        cluster_features(features, (5,))


def test_neighbours_of_one_cluster_become_one_segment():
    clips = [
        Clip("eyes/a", 4, 8),
        Clip("eyes/a", 0, 4),
        Clip("eyes/a", 8, 12),
        Clip("eyes/a", 20, 24),
        Clip("eyes/b", 0, 4),
    ]
    clusters = segments_of(clips, np.array([7, 7, 2, 2, 7]))
    assert clusters == {
        "eyes/a": [Segment(0, 8, 7), Segment(8, 12, 2), Segment(20, 24, 2)],
        "eyes/b": [Segment(0, 4, 7)],
    }


def test_a_file_is_read_back(tmp_path):
    clusters = {"eyes/a": [Segment(0.0, 8.0, 7), Segment(8.0, 12.5, 2)], "knees/b": []}
    write_clusters(tmp_path / "clusters.json", clusters, {"encoder": "ColorHistogram", "levels": [30, 3]})
    assert read_clusters(tmp_path / "clusters.json") == clusters


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file of clusters"),
        ("{", "not a readable JSON file"),
        ("[]", "not a file of clusters of format 1"),
        ('{"format": 2, "videos": {}}', "not a file of clusters of format 1"),
        ('{"format": 1, "videos": {"a": [[0, 1]]}}', "expected .start_seconds, end_seconds, cluster. lists"),
    ],
)
def test_what_is_no_file_of_clusters_is_an_error(tmp_path, content, message):
    path = tmp_path / "clusters.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"clusters\.json: .*{message}"):
        read_clusters(path)
