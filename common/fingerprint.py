"""The identity of a video file's content, cheap enough for a thousand operations of a gigabyte each."""

from __future__ import annotations

import hashlib
from pathlib import Path

NUM_BLOCKS = 64
BLOCK_BYTES = 1 << 16


def video_fingerprint(path: Path) -> str:
    """Hex SHA-256 of a file's size and of 64 blocks of 64 KiB spread evenly over it; small files are read whole.

    Equal files have equal fingerprints, under any name. Another encoding of the same picture has another one.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}:".encode())
    with open(path, "rb") as stream:
        if size <= NUM_BLOCKS * BLOCK_BYTES:
            digest.update(stream.read())
        else:
            for block in range(NUM_BLOCKS):
                stream.seek((size - BLOCK_BYTES) * block // (NUM_BLOCKS - 1))
                digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()
