"""Names from strangers' files in reports: the page runs none of them, tables hold none as a formula."""

import csv
import io
import re
import shutil

import openpyxl
import pytest

import compute_results
from common import run_k_folds
from common.base import paths
from common.head.config import TrainConfig
from tests.common.conftest import PHASES, made

__all__ = ["made"]  # the fixture

HOSTILE_PHASES = (
    "<script>document.title='hacked'</script>",
    '"><img/src=x/onerror=document.title="hacked">',
    "=cmd|'/C_calc'!A0",
    "@SUM(1+1)*cmd",
)
HOSTILE_VIDEOS = ("=1+1", "+1+cmd", "-2+3", "@SUM(A1)", "{{7+7}}", "${7+7}&amp;'`")
HOSTILE_SOURCE = "</script><svg onload=document.title='hacked'>{{7+7}}"
HOSTILE_PATIENT = "=HYPERLINK(1)"
FORMULA = re.compile(r"[=+\-@\t\r].*")  # what a spreadsheet takes for one
HEAD = ["--model", "ColorHistogram", "--device", "cpu", "--num_epochs", "2", "--num_layers_PG", "3", "--num_layers_R",
        "2", "--num_R", "1", "--num_f_maps", "8", "--dataset", "made"]  # fmt: skip


@pytest.fixture
def hostile(made):
    """The made data set with hostile names of phases, videos, patients and lists, run on a list of its own."""
    dataset = made.dataset
    dataset.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(HOSTILE_PHASES)))
    renamed = dict(zip(PHASES, HOSTILE_PHASES, strict=True))
    shutil.rmtree(dataset.splits)
    for path, name in zip(sorted(dataset.ground_truth.iterdir()), HOSTILE_VIDEOS, strict=True):
        text = "".join(f"{renamed[word]}\n" for word in path.read_text().split())
        path.rename(path.with_name(f"{name}.txt")).write_text(text)
        for suffix in (".npy", ".json"):
            (made.features / f"{path.stem}{suffix}").rename(made.features / f"{name}{suffix}")
    dataset.patients.write_text(
        "video,patient\n" + "".join(f"{name},{HOSTILE_PATIENT}{name}\n" for name in HOSTILE_VIDEOS)
    )
    folder = dataset.split_list("theirs")
    folder.mkdir(parents=True)
    for number, test in ((1, HOSTILE_VIDEOS[:3]), (2, HOSTILE_VIDEOS[3:])):
        train = [name for name in HOSTILE_VIDEOS if name not in test]
        for part, videos in (("train", train), ("test", test)):
            dataset.bundle(part, number, "theirs").write_text("".join(f"{name}.txt\n" for name in videos))
    quoted = HOSTILE_SOURCE.replace("'", "''")
    dataset.split_lists.write_text(f"lists: {{theirs: {{standing: official, source: '{quoted}'}}}}\n")
    assert run_k_folds.main([*HEAD, "--splits", "theirs"]) == 0
    assert compute_results.main(["--dataset", "made", "--compare-kfold", "--splits", "theirs"]) == 0
    return paths.comparison_results()


@pytest.mark.slow
def test_reports_show_strange_names_and_obey_none(hostile):
    text = (hostile / "report.html").read_text(encoding="utf-8")
    own = re.sub(r"<script>.*?</script>", "", text, count=1, flags=re.DOTALL)  # without plotly
    for word in (*HOSTILE_PHASES[:2], HOSTILE_SOURCE):
        assert word not in own
    assert "<svg onload" not in own
    assert "14" not in re.findall(r"list theirs \(official; [^)]*\)", own)[0]

    playwright = pytest.importorskip("playwright.sync_api")
    if chromium := shutil.which("chromium"):
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page()
            raised: list[str] = []
            page.on("pageerror", lambda error: raised.append(str(error)))
            page.goto((hostile / "report.html").as_uri())
            page.wait_for_selector(".js-plotly-plot .main-svg")
            assert page.title() != "hacked"
            assert HOSTILE_SOURCE.partition("{{")[0] in page.inner_text("body")  # as text
            assert raised == []
            browser.close()

    rows = list(csv.reader(io.StringIO((hostile / "per_video.csv").read_text(encoding="utf-8-sig"))))
    for cell in (cell for row in rows for cell in row):
        is_number = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", cell)
        assert is_number or not FORMULA.match(cell), cell
    found = {row[rows[0].index("Video")].lstrip("'") for row in rows[1:]}
    assert found == set(HOSTILE_VIDEOS)

    for workbook in hostile.glob("*.xlsx"):
        for sheet in openpyxl.load_workbook(workbook):
            for cell in (cell for row in sheet.iter_rows() for cell in row):
                assert cell.data_type != "f", (workbook.name, sheet.title, cell.coordinate, cell.value)


def test_a_run_cannot_be_called_so():
    from common.base.runtime import UserError

    for name in (*HOSTILE_PHASES, *HOSTILE_VIDEOS, "../up", "a/b", "con", ""):
        if name in ("=1+1", "+1+cmd", "-2+3"):  # letters and marks that folders may have
            continue
        with pytest.raises(UserError):
            TrainConfig(run=name)
