"""Write docs/sample_labelling.png: a test video of the sample set, pre-labelled, as VIA shows it.

VIA_HTML=via_video_annotator.html python docs/make_labelling.py      # after make demo; needs Chromium
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from common.base import paths
from common.base.options import CommandParser
from common.base.runtime import UserError, run_main
from common.dataset.annotations.known_formats import PROJECTS
from common.dataset.split_lists import open_splits
from common.prelabel import main as prelabel

PICTURE = Path(__file__).with_name("sample_labelling.png")
SIZE = {"width": 1250, "height": 1160}
ROWS = 7  # so that a small picture still shows the video above them


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    parser = CommandParser(None, __doc__)
    parser.groups["model"].add_argument(
        "--model", default="EfficientNet-Lite0", help="whose head (default: %(default)s)"
    )
    given = parser.parse_args(argv)
    page = os.environ.get("VIA_HTML", "")
    if not os.path.isfile(page):
        raise UserError("VIA_HTML: expected the path of VIA's page (via_video_annotator.html), found none")
    dataset = paths.dataset("sample")
    video = open_splits(dataset).videos("test", 1)[0]
    with tempfile.TemporaryDirectory() as folder:
        videos = Path(folder) / "theatre"
        videos.mkdir()
        shutil.copy(paths.find_videos(dataset.videos)[video], videos)
        words = [str(videos), "--model", given.model, "--dataset", "sample", "--split", "1", "--format", "via"]
        prelabel([*words, "--min_seconds", "0.5", "--output", str(videos)])
        shutil.copy(page, videos / "via.html")
        _take_picture(videos)
    return 0


def _take_picture(videos: Path) -> None:
    from playwright.sync_api import sync_playwright

    project = (videos / PROJECTS["via"]).read_text(encoding="utf-8")
    rows = '"gtimeline_visible_row_count": "'
    before, _, after = project.partition(rows)
    project = f"{before}{rows}{ROWS}{after[after.index(chr(34)) :]}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        view = browser.new_page(viewport=SIZE)
        view.goto(f"file://{videos}/via.html")
        view.wait_for_function("window.via && via.d")
        view.evaluate("text => via.d.project_load(text)", project)
        view.wait_for_function("document.querySelector('video')?.duration > 0")
        view.evaluate("document.querySelector('video').currentTime = 5")
        view.wait_for_timeout(3000)
        view.screenshot(path=str(PICTURE))
        browser.close()


if __name__ == "__main__":
    run_main(main)
