"""The root script: what it writes, and that one split does not replace all folds."""

import json
import platform
import re
import subprocess
import sys
import zipfile

import openpyxl
import pytest
from PIL import Image

import compute_results
from common.base import paths
from common.base.runtime import UserError
from common.reports.written import public_text
from common.run_k_folds import main as run_k_folds
from common.scoring import folder, metrics, video_score
from tests.common.conftest import made
from tests.common.reports.page.packed import charts_of
from tests.common.work import counting

__all__ = ["made"]  # the fixture of the tests of common/

HEAD = ["--num_layers_PG", "3", "--num_layers_R", "3", "--num_R", "1", "--num_f_maps", "8", "--num_epochs", "2"]
WORDS = ["--dataset", "made", "--model", "ColorHistogram", "--folds", "2", "--device", "cpu", *HEAD]


@pytest.fixture
def finished(made):
    run_k_folds(WORDS)
    return made


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.mark.slow
def test_all_folds_write_page_workbook_rows_and_pictures_and_say_where(finished, capsys):
    assert compute_results.main(["--dataset", "made", "--compare-kfold", "2", "--pdf"]) == 0
    folder = paths.comparison_results()
    written = names(folder)
    assert {"report.html", "kfold_comparison.xlsx", "per_video.csv", "kfold_ribbons.png", "ribbons"} <= written
    for picture in ("comparison_chart", "comparison_table", "phases", "cost", "learning_curves", "features"):
        assert {f"kfold_{picture}.png", f"kfold_{picture}.pdf"} <= written
    printed = capsys.readouterr().out
    assert f"wrote {folder / 'report.html'}" in printed
    assert "Protocol challenge: " in printed
    assert names(paths.model("ColorHistogram").visualizations_kfold) == {"made_confusion.png", "made_confusion.pdf"}


def test_brief_prints_where_the_files_are_and_nothing_else(finished, capsys):
    compute_results.main(["--dataset", "made", "--model", "ColorHistogram", "--split", "1", "--brief"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"wrote {paths.model('ColorHistogram').workbook} and ")


@pytest.mark.slow
def test_one_split_does_not_replace_what_is_of_all_folds(finished):
    compute_results.main(["--dataset", "made", "--compare-kfold", "2"])
    folder = paths.comparison_results()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}
    compute_results.main(["--dataset", "made", "--split", "2"])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {"model_report.html", "model_comparison.xlsx", "model_per_video.csv"} <= names(folder)


@pytest.mark.slow
def test_the_first_protocol_heads_the_tables(finished, capsys):
    compute_results.main(["--dataset", "made", "--split", "1", "--protocol", "mstcn", "challenge"])
    assert "Protocol mstcn: " in capsys.readouterr().out


@pytest.mark.slow
def test_quoted_rows_come_only_when_asked_for(finished, capsys):
    compute_results.main(["--dataset", "made", "--split", "1"])
    assert "Rows marked 'quoted'" not in capsys.readouterr().out
    compute_results.main(["--dataset", "made", "--split", "1", "--with-published"])
    assert "Rows marked 'quoted' are copied from" in capsys.readouterr().out


def test_one_model_has_a_workbook_and_pictures_in_its_folder(finished):
    compute_results.main(["--dataset", "made", "--model", "ColorHistogram", "--split", "1"])
    model = paths.model("ColorHistogram")
    kinds = ("ribbons", "confusion", "learning_curve", "features")
    assert names(model.visualizations) == {f"made_split_1_{kind}.png" for kind in kinds}
    assert model.workbook.is_file()


def test_a_split_that_was_not_run_says_what_to_run(finished):
    with pytest.raises(UserError, match=r"no finished run; run: python -m common\.run_k_folds --model ColorHistogram"):
        compute_results.main(["--dataset", "made", "--model", "ColorHistogram", "--split", "9"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--compare-kfold 2 --run seed7", "--run goes with --model; .* --runs seed7"),
        ("--compare-kfold 2 --model ColorHistogram", "--compare-kfold would have no effect with --model"),
        ("--compare-kfold 0 --model ColorHistogram", "--compare-kfold would have no effect with --model"),
        ("--compare-kfold 2 --split 1", "--split would have no effect with --compare-kfold"),
        ("--model ColorHistogram --models Base --runs x", "--models and --runs would have no effect with --model"),
        ("--model ColorHistogram --with-published", "--with-published would have no effect with --model"),
        ("--model ColorHistogram --against Base", "--against would have no effect with --model"),
        ("--compare-kfold 0", "0 folds: .* has 2"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(made, words, said):
    with pytest.raises(UserError, match=said):
        compute_results.main(["--dataset", "made", *words.split()])


def test_a_baseline_that_is_no_row_is_an_error_that_lists_the_rows(finished):
    with pytest.raises(UserError, match="--against 'Base': no row is called so; there are: ColorHistogram;"):
        compute_results.main(["--dataset", "made", "--compare-kfold", "2", "--against", "Base"])


def test_a_benchmark_tests_all_pairs(made):
    with pytest.raises(UserError, match="--against would have no effect with --benchmark"):
        compute_results.main(["--benchmark", "made", "--against", "Base"])


@pytest.mark.slow
def test_fewer_folds_than_there_are_are_named_everywhere(finished, capsys):
    compute_results.main(["--dataset", "made", "--compare-kfold", "1", "--models", "ColorHistogram"])
    sentence = "Unfinished: of 2 folds, the numbers of ColorHistogram over 1 only."
    assert sentence in capsys.readouterr().out
    folder = paths.comparison_results()
    assert sentence in (folder / "report.html").read_text()
    notes = openpyxl.load_workbook(folder / "kfold_comparison.xlsx")["notes"]
    assert sentence in [cell.value for row in notes for cell in row]


@pytest.mark.slow
def test_what_is_shared_names_no_path_no_host_and_no_patient(finished, monkeypatch):
    monkeypatch.setattr(platform, "node", lambda: "theatre-pc-7")
    private = "/mnt/hospital disk/Anna/weights.pth"
    videos = [path.stem for path in finished.dataset.ground_truth.iterdir()]
    finished.dataset.patients.write_text(
        "video,patient\n" + "".join(f"{name},Zacharias{name[-1]}\n" for name in videos)
    )
    for path in paths.repository_root().glob("models/*/results/**/run.json"):
        record = json.loads(path.read_text())
        record["features"]["identity"]["weights"] |= {"source": private, "file": private, "sha256": "ab" * 32}
        record["device"] = "cpu of theatre-pc-7"
        record["damaged_videos"] = {videos[0]: "cut"}
        path.write_text(json.dumps(record))
    damaged = paths.model("ColorHistogram").results("made") / "broken" / "split_1" / "run.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    compute_results.main(["--dataset", "made", "--split", "1", "--share"])
    folder = paths.comparison_results() / "share"
    assert names(folder) == {"model_report.html", "model_comparison.xlsx"}
    assert not list(paths.comparison_results().glob("*.csv"))
    page = (folder / "model_report.html").read_text()
    with zipfile.ZipFile(folder / "model_comparison.xlsx") as book:
        texts = [page, json.dumps(charts_of(page)), *(book.read(name).decode() for name in book.namelist())]
    for word in (str(paths.repository_root()), str(paths.CHECKOUT), "hospital", "Anna", "Zacharias", platform.node()):
        assert not [text for text in texts if re.search(rf"(?<!\w){re.escape(word)}", text)], word
    assert "weights.pth" in page
    assert "Left out: models/ColorHistogram/results/made/broken/split_1/run.json: not a readable JSON file" in page
    assert "Damaged videos were scored" in page


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("C:\\Users\\Anna M\\x.pth", "x.pth"),
        ("~/secret/x.pth", "x.pth"),
        ("https://server.hospital.org/a/x.pth", "x.pth"),
        ("hub:facebook/dinov3-vitb16", "hub:facebook/dinov3-vitb16"),
        ("see /srv/a/b.txt, then D:\\c\\d.txt (1/2)", "see b.txt, then d.txt (1/2)"),
        ("from https://server.org/a/x.pth with 90 / 10", "from x.pth with 90 / 10"),
    ],
)
def test_a_path_is_cut_to_its_last_part(text, public):
    assert public_text(text) == public


ODD_PHASES = {
    "incision": "$x_1^$", "wash": "=SUM(1)<b>&amp;%{y}%s", "suture": "縫合" + "very_long_" * 15 + "name",
}  # fmt: skip


@pytest.mark.slow
def test_any_name_of_a_phase_is_drawn_printed_and_exported(made, caplog, capsys, recwarn):
    for path in (made.dataset.mapping, *made.dataset.ground_truth.iterdir()):
        text = path.read_text()
        for plain, odd in ODD_PHASES.items():
            text = text.replace(plain, odd)
        path.write_text(text)
    run_k_folds([*WORDS, "--run", "=1+1"])
    compute_results.main(["--dataset", "made", "--compare-kfold", "2"])
    folder = paths.comparison_results()
    raw = [str(warning.message) for warning in recwarn] + [record.getMessage() for record in caplog.records]
    assert [text for text in raw if "Glyph" in text or "findfont" in text or "layout" in text] == []
    assert sum("pictures show boxes for" in text for text in raw) <= 1
    assert "ColorHistogram (=1+1)" in capsys.readouterr().out
    for name in ("kfold_ribbons", "kfold_phases", "kfold_comparison_chart"):
        width, height = Image.open(folder / f"{name}.png").size
        assert max(width, height) < 6000
    book = openpyxl.load_workbook(folder / "kfold_comparison.xlsx")
    texts = {cell.value: cell.data_type for page in book for row in page.iter_rows() for cell in row}
    assert {texts[odd] for odd in ODD_PHASES.values()} == {"s"}
    assert "縫合" in (folder / "report.html").read_text()


# --- work that is counted ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_report_reads_each_prediction_once_and_ranks_each_videos_frames_once(made):
    """Per run and fold: a pass over each file, an average precision a video, and one of all its frames pooled."""
    run_k_folds([*WORDS, "--no_floors", "--seed", "42,43"])
    words = ["--dataset", "made", "--compare-kfold", "2", "--brief"]
    counted = {
        "probabilities": (folder, "read_probabilities"),
        "of a video": (video_score, "average_precision_per_class"),
        "pooled": (metrics, "average_precision_per_class"),
    }
    with counting(**counted) as two_runs:
        compute_results.main(words)
    results = paths.model("ColorHistogram").results("made")
    predictions = two_runs.reads_of(results, "*_?.txt")
    assert len(predictions) == 2 * 6
    assert set(predictions.values()) == {1}
    assert two_runs.calls == {"probabilities": 2 * 6, "of a video": 2 * 6, "pooled": 2 * 2}
    assert not two_runs.processes
    assert not two_runs.built

    with counting() as one_run:
        compute_results.main([*words, "--runs", "default"])
    labels = made.dataset.ground_truth
    assert one_run.reads_of(labels, "*.txt") == two_runs.reads_of(labels, "*.txt"), "labels are read once for all runs"


@pytest.mark.slow
@pytest.mark.parametrize("words", [["--compare-kfold", "2"], ["--model", "ColorHistogram", "--split", "1"]])
def test_a_report_loads_no_torch(finished, words):
    """It takes seconds and half a gigabyte to load, in each of the processes that write, and no table needs it."""
    code = "import sys, compute_results; compute_results.main(sys.argv[1:]); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "--dataset", "made", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=paths.CHECKOUT)
    assert done.returncode == 0, done.stderr
