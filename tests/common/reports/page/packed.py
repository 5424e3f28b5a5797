"""What a page holds packed, for tests that read it."""

import base64
import json
import re
import zlib
from typing import Any


def plotly_of(page: str) -> str:
    """The code of plotly."""
    return unpacked(re.search(r'id="plotly">([^<]*)<', page)[1])


def charts_of(page: str) -> dict[str, dict[str, Any]]:
    """Every chart's content by its name."""
    found = re.findall(r'<div id="chart-([^"]+)"[^>]*></div><script type="text/plain" class="figure">([^<]*)<', page)
    return {name: json.loads(unpacked(content)) for name, content in found}


def unpacked(text: str) -> str:
    return zlib.decompress(base64.b64decode(text)).decode()
