"""The judgement itself: each way of meeting a damaged input badly is found, and a good one has no fault."""

from dataclasses import replace

import pytest

from tests.faults.driver import KILLED, Case, Outcome
from tests.faults.judgement import faults_of
from tests.faults.mutators import SOUND, Damage
from tests.faults.world import Command, Target

COMMAND = Command("common.train", ("--split", "1"))
CASE = Case(Target("data/set/mapping.txt", "text", (COMMAND,)), Damage("empty", is_certain=True), COMMAND)
GOOD = Outcome(
    name=CASE.name, code=1, cpu_seconds=0.1, said="error: data/set/mapping.txt: empty; write it again\n", missing=[],
    is_replaced=False, has_run_code=False, has_written_outside=False,
)  # fmt: skip
BAD = {
    "took too long": {"code": KILLED},
    "ended with 70": {"code": 70},
    "ended with -11": {"code": -11},
    "ended with a traceback": {"said": "mapping.txt\nTraceback (most recent call last):\n"},
    "does not name the file": {"said": "error: 'int' object is not subscriptable\n"},
    "passed it over in silence": {"code": 0, "said": "trained\n"},
    "says several errors": {"said": "error: mapping.txt: empty\nerror: no folds\n"},
    "has a line without end": {"said": f"error: mapping.txt: {'x' * 5000}\n"},
    "prints control characters": {"said": "error: mapping.txt: \x1b[31mred\n"},
    "left undone: audit.json": {"missing": ["audit.json"]},
    "ran code of the file": {"has_run_code": True},
    "wrote outside its folders": {"has_written_outside": True},
}


def test_one_line_that_names_the_file_is_no_fault():
    assert faults_of(CASE, GOOD) == []
    assert faults_of(CASE, replace(GOOD, code=0)) == []  # a warning, and the rest goes on
    assert faults_of(CASE, replace(GOOD, code=0, said="", is_replaced=True)) == []


@pytest.mark.parametrize("fault", BAD)
def test_each_fault_is_found(fault):
    assert faults_of(CASE, replace(GOOD, **BAD[fault])) == [fault]


def test_sound_files_must_end_well():
    sound = replace(CASE, damage=Damage(SOUND, b"0 background\n"))
    assert faults_of(sound, GOOD) == ["fails with sound files"]
    assert faults_of(sound, replace(GOOD, code=0, said="trained\n")) == []


def test_a_damage_in_values_may_be_passed_over_by_who_needs_none():
    inside = replace(CASE.damage, is_inside=True)
    passed = replace(GOOD, code=0, said="8 already there\n")
    assert faults_of(replace(CASE, damage=inside), passed) == ["passed it over in silence"]
    assert faults_of(replace(CASE, damage=inside, command=replace(COMMAND, skips_values=True)), passed) == []
