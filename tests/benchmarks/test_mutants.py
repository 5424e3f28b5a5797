"""The list of mutants fits the sources as they are, and a mutant is in the copy only while it is tried."""

from tests.benchmarks.mutants import CHECKOUT, MUTANTS, Copy, copy_files, misplacement


def test_every_mutant_changes_one_place_and_has_its_tests():
    assert [line for mutant in MUTANTS if (line := misplacement(mutant))] == []
    assert all(mutant.old != mutant.new for mutant in MUTANTS)
    assert len({(mutant.file, mutant.old) for mutant in MUTANTS}) == len(MUTANTS)


def test_a_mutant_that_fits_nowhere_is_named():
    lost = MUTANTS[0]._replace(old="no such text")
    assert misplacement(lost) == (
        f"{lost.file}: expected 'no such text' once, found 0 times; bring mutations.py up to date"
    )
    assert "no tests test_nothing.py" in misplacement(MUTANTS[0]._replace(tests=("test_nothing.py",)))


def test_a_mutant_is_in_the_copy_only_while_it_is_tried(tmp_path):
    copy, mutant = Copy(copy_files(tmp_path / "checkout")), MUTANTS[0]
    path, original = copy.folder / mutant.file, (CHECKOUT / mutant.file).read_text(encoding="utf-8")
    with copy.mutated(mutant):
        assert path.read_text(encoding="utf-8") == original.replace(mutant.old, mutant.new)
    assert path.read_text(encoding="utf-8") == original
    assert (CHECKOUT / mutant.file).read_text(encoding="utf-8") == original
