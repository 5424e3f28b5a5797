"""Quoted numbers: read as written, marked wherever they appear."""

import math

import pytest

from common.base import paths
from common.reports.published import MARK, quotation, read_published
from common.scoring.metrics import MEASURES


def test_rows_are_fractions_with_their_spread():
    best = next(row for row in read_published() if row.model == "DinoV3-ViT-7B16")
    assert best.values["accuracy"] == pytest.approx((0.8340, 0.0137))
    assert best.values["miou"] == pytest.approx((0.6407, 0.0324))
    assert list(best.values) == list(MEASURES)


def test_what_a_source_does_not_give_is_absent_and_never_zero():
    row = next(row for row in read_published() if row.model == "V-JEPA2-ViT-L-CataractFT")
    assert list(row.values) == ["accuracy"]
    mean, std = row.values["accuracy"]
    assert mean == pytest.approx(0.7153)
    assert math.isnan(std)


def test_every_row_is_marked_and_names_its_source_and_a_model_folder():
    rows = read_published()
    folders = {model.name for model in paths.all_models()}
    for row in rows:
        assert MARK in row.label
        assert "2604.10514" in row.source
        assert row.model in folders
    assert len({row.name for row in rows}) == len(rows) == 12


def test_the_remark_names_each_source_once():
    rows = read_published()
    text = quotation(rows)
    assert text.count("main table") == 1
    assert "not computed here" in text


def test_means_are_percentages_of_the_right_size():
    for row in read_published():
        for mean, std in row.values.values():
            assert 0.5 < mean < 0.9
            assert math.isnan(std) or 0.004 < std < 0.05
