"""The real annotation tools, where `make test-tools` has installed them; a made video with phases to open in them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.base.paths import CHECKOUT
from common.dataset.annotations.prelabelled import Prelabelled, PrelabelledSegment

TOOLS = CHECKOUT / "build" / "tools"
PHASES = ("background", "incision", "wash & rinse", "suture")
COLOURS = ("#DDDDDD", "#E65518", "#AA3377", "#72190E")
BOUNDS = ((0, 30, 0), (30, 80, 1), (80, 85, 3), (85, 150, 2))
START_SECONDS = 300  # Label Studio makes its database at the first start


@pytest.fixture
def video(tmp_path, make_clip, solid) -> Prelabelled:
    """Six seconds at 25 frames a second in `theatre/case 7.mp4`, with four segments, one of them doubtful."""
    make_clip(tmp_path / "theatre" / "case 7.mp4", solid((120, 60, 40), 150, (96, 128)))
    segments = tuple(
        PrelabelledSegment(
            start, end, PHASES[phase], 0.9 if end - start > 5 else 0.4, "" if end - start > 5 else "only 0.2 s long"
        )
        for start, end, phase in BOUNDS
    )
    return Prelabelled("case 7", "case 7.mp4", np.arange(151) / 25, segments)


def tool_python(name: str) -> Path:
    """The interpreter of a tool's environment; the test is skipped where there is none."""
    python = TOOLS / name / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.is_file():
        pytest.skip(f"{name} is not installed in {TOOLS / name}; make test-tools installs it")
    return python


@pytest.fixture
def chromium() -> Iterator[Any]:
    """A page of the system's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if not program:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": 1500, "height": 1000})
        browser.close()


class LabelStudio:
    """A server of Label Studio of one's own, and a session in it."""

    NAME, PASSWORD = "somebody@example.org", "not-a-secret"

    def __init__(self, address: str):
        self.address, self.cookies = address, CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.cookies))

    def log_in(self) -> None:
        self.opener.open(f"{self.address}/user/login", timeout=20).read()
        self.call(
            "POST", "/user/login", urllib.parse.urlencode({"email": self.NAME, "password": self.PASSWORD}).encode()
        )

    def call(self, method: str, path: str, content: Any = None) -> Any:
        """What the server answers, parsed."""
        body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        kind = "application/x-www-form-urlencoded" if isinstance(content, bytes) else "application/json"
        token = next((cookie.value for cookie in self.cookies if cookie.name == "csrftoken"), "")
        headers = {"Content-Type": kind, "X-CSRFToken": token, "Referer": self.address}
        request = urllib.request.Request(self.address + path, body, headers, method=method)
        with self.opener.open(request, timeout=60) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else text


@pytest.fixture
def label_studio(tmp_path) -> Iterator[LabelStudio]:
    """Label Studio on a free port of this machine, which serves the files below `tmp_path`."""
    python = tool_python("label-studio")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(tmp_path / "label-studio"),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(tmp_path),
        "COLLECT_ANALYTICS": "false", "LATEST_VERSION_CHECK": "false", "SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "",
    }  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    words = [python, "-c", "from label_studio.server import main; main()", "start", "--no-browser", "--host", address]
    words += ["--internal-host", "127.0.0.1", "--port", str(port), "--log-level", "ERROR"]
    words += ["--username", LabelStudio.NAME, "--password", LabelStudio.PASSWORD]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | settings
    with open(tmp_path / "label_studio.log", "w") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        server, started = LabelStudio(address), time.monotonic()
        while True:
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                server.log_in()
                break
            said = (tmp_path / "label_studio.log").read_text()[-2000:]
            assert process.poll() is None, said
            assert time.monotonic() - started < START_SECONDS, said
            time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        process.wait(30)
