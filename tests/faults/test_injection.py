"""Names from strangers' files in reports: the page runs none of them, tables hold none as a formula."""

import csv
import html.parser
import io
import json
import re
import shutil
from pathlib import Path

import openpyxl
import pytest

import compute_results
from common import export_to_excel, run_k_folds
from common.base import paths
from common.base.runtime import UserError
from common.dataset.phases import read_mapping
from common.head.config import TrainConfig
from tests.common.conftest import PHASES, MadeDataset, made

__all__ = ["made"]  # the fixture

HACK = "document.title='hacked'"
HOSTILE_PHASES = (
    f"<script>{HACK}</script>",
    '"><img/src=x/onerror=document.title="hacked">',
    "=cmd|'/C'!A0",
    "@SUM(1+1)*cmd",
)
HOSTILE_VIDEOS = ("=1+1", "+1+cmd", "-2+3", "@SUM(A1)", "{{7+7}}", "${7+7}&amp;'`")
HOSTILE_PATIENT = "=HYPERLINK(1)"
HOSTILE_CENTRE = f"<iframe/srcdoc='<script>{HACK}</script>'>"
HOSTILE_WEIGHTS = f"=cmd|' /C calc'!A0<img src=x onerror={HACK}>"
HOSTILE_SOURCE = f"</script><svg onload={HACK}>{{{{7+7}}}}"
DATASET, RUN = "=1+1", "@SUM+1"  # letters and marks that folders may have
LINE_ENDS = ("\v", "\f", "\x1c", "\x85", "\u2028", "\u2029", "\u202e")  # to some programs, and text that runs backwards
FORMULA = re.compile(r"[=+\-@\t\r].*", re.DOTALL)  # what a spreadsheet takes for one
NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
HEAD = ["--model", "ColorHistogram", "--device", "cpu", "--num_epochs", "2", "--num_layers_PG", "3", "--num_layers_R",
        "2", "--num_R", "1", "--num_f_maps", "8", "--dataset", DATASET, "--splits", "theirs"]  # fmt: skip


def rename(made: MadeDataset) -> paths.Dataset:
    """The made data set with hostile names of phases, videos, patients, centres, weights, a list and of its own."""
    dataset = paths.Dataset(made.dataset.root.rename(made.dataset.root.with_name(DATASET)))
    dataset.mapping.write_text("".join(f"{index} {name}\n" for index, name in enumerate(HOSTILE_PHASES)))
    renamed = dict(zip(PHASES, HOSTILE_PHASES, strict=True))
    shutil.rmtree(dataset.splits)
    features = dataset.features("ColorHistogram")
    for path, name in zip(sorted(dataset.ground_truth.iterdir()), HOSTILE_VIDEOS, strict=True):
        text = "".join(f"{renamed[word]}\n" for word in path.read_text().split())
        path.rename(path.with_name(f"{name}.txt")).write_text(text)
        (features / f"{path.stem}.npy").rename(features / f"{name}.npy")
        sidecar = json.loads((features / f"{path.stem}.json").read_text())
        sidecar["weights"]["source"] = HOSTILE_WEIGHTS
        (features / f"{path.stem}.json").rename(features / f"{name}.json").write_text(json.dumps(sidecar))
    for path, column, word in (
        (dataset.patients, "patient", HOSTILE_PATIENT),
        (dataset.groups, "group", HOSTILE_CENTRE),
    ):
        rows = "".join(f"{name},{word}{number % 3}\n" for number, name in enumerate(HOSTILE_VIDEOS))
        path.write_text(f"video,{column}\n{rows}")
    folder = dataset.split_list("theirs")
    folder.mkdir(parents=True)
    for number, test in ((1, HOSTILE_VIDEOS[0::3] + HOSTILE_VIDEOS[1::3]), (2, HOSTILE_VIDEOS[2::3])):
        train = [name for name in HOSTILE_VIDEOS if name not in test]
        for part, videos in (("train", train), ("test", test)):
            dataset.bundle(part, number, "theirs").write_text("".join(f"{name}.txt\n" for name in videos))
    quoted = HOSTILE_SOURCE.replace("'", "''")
    dataset.split_lists.write_text(f"lists: {{theirs: {{standing: official, source: '{quoted}'}}}}\n")
    return dataset


@pytest.fixture
def hostile(made) -> Path:
    """The folder of a report on two runs with hostile names."""
    rename(made)
    assert run_k_folds.main(HEAD) == 0
    assert run_k_folds.main([*HEAD, "--run", RUN]) == 0
    assert export_to_excel.main(["--dataset", DATASET, "--model", "ColorHistogram", "--splits", "theirs"]) == 0
    assert compute_results.main(["--dataset", DATASET, "--compare-kfold", "--splits", "theirs"]) == 0
    return paths.comparison_results()


class Elements(html.parser.HTMLParser):
    """Elements of a page with their attributes, and its text outside scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data) -> None:
        if self.cdata_elem == "script":
            self.scripts.append(data)
        elif self.cdata_elem is None:
            self.text += data


def assert_page_is_sound(page: Path) -> None:
    """No element of it is from a name, and names are in its text as they are."""
    elements = Elements(page.read_text(encoding="utf-8"))
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"iframe", "object", "embed", "base", "form", "link"}
    pictures = [attributes["src"] for tag, attributes in elements.found if tag == "img"]
    assert all(address.startswith("data:image/png;base64,") for address in pictures), pictures
    assert [name for _, attributes in elements.found for name in attributes if name.startswith("on")] == []
    assert not any(script.strip() == HACK for script in elements.scripts)
    assert sum(tag == "script" for tag, _ in elements.found) == len(elements.scripts)
    for word in (DATASET, RUN, HOSTILE_SOURCE, HOSTILE_WEIGHTS, *HOSTILE_PHASES, *HOSTILE_VIDEOS):
        assert word in elements.text, word


def assert_browser_obeys_none(page: Path) -> None:
    """A browser that draws all of it runs nothing of a name, and fails at none."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        happened: list[str] = []
        tab.on("pageerror", lambda error: happened.append(str(error)))
        tab.on("dialog", lambda dialog: happened.append(dialog.message))
        tab.on("request", lambda request: happened.append(request.url) if request.url != page.as_uri() else None)
        tab.goto(page.as_uri())
        tab.wait_for_selector(".js-plotly-plot .main-svg")
        tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        tab.wait_for_timeout(500)
        assert tab.title() != "hacked"
        assert HOSTILE_SOURCE in tab.inner_text("body")
        assert [what for what in happened if not what.startswith(("data:", "blob:"))] == []
        browser.close()


def assert_tables_hold_text(folders: list[Path]) -> None:
    """No cell of a table or a workbook begins as a formula does, numbers excepted."""
    tables = [path for folder in folders for path in folder.rglob("*.csv")]
    workbooks = [path for folder in folders for path in folder.rglob("*.xlsx")]
    assert tables
    assert len(workbooks) >= 2
    for table in tables:
        rows = csv.reader(io.StringIO(table.read_text(encoding="utf-8-sig")))
        for cell in (cell for row in rows for cell in row):
            assert NUMBER.fullmatch(cell) or not FORMULA.match(cell), (table.name, cell)
    texts = set()
    for workbook in workbooks:
        for sheet in openpyxl.load_workbook(workbook):
            for cell in (cell for row in sheet.iter_rows() for cell in row):
                assert cell.data_type != "f", (workbook.name, sheet.title, cell.coordinate, cell.value)
                assert cell.hyperlink is None or not cell.hyperlink.target
                texts.add(cell.value)
    assert {*HOSTILE_VIDEOS, HOSTILE_PHASES[2]} <= texts


@pytest.mark.slow
def test_reports_show_strange_names_and_obey_none(hostile, workspace):
    assert_page_is_sound(hostile / "report.html")
    assert_tables_hold_text([hostile, workspace / "models"])
    rows = list(csv.reader(io.StringIO((hostile / "per_video.csv").read_text(encoding="utf-8-sig"))))
    assert {row[rows[0].index("Video")].lstrip("'") for row in rows[1:]} == set(HOSTILE_VIDEOS)
    assert_browser_obeys_none(hostile / "report.html")


@pytest.mark.parametrize("name", [*HOSTILE_PHASES, *HOSTILE_VIDEOS[3:], "../up", "a/b", "con", "", *LINE_ENDS])
def test_a_run_cannot_be_called_so(name):
    with pytest.raises(UserError):
        TrainConfig(run=name)


@pytest.mark.parametrize("character", LINE_ENDS)
def test_a_phase_is_called_by_what_can_be_seen(character, tmp_path):
    path = tmp_path / "mapping.txt"
    path.write_text(f"0 background\n1 suture{character}=1+1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mapping\.txt, line 2: ") as raised:
        read_mapping(path)
    assert str(raised.value).isprintable()
