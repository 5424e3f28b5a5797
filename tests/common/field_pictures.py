"""H.264 whose frames are stored as two fields each, which no encoder at hand writes: uncompressed macroblocks (I_PCM).

The syntax is that of ITU-T H.264, 7.3; only what it needs is written.
"""

from pathlib import Path

import av
import numpy as np

from tests.common.odd_videos import SIZE, numbered

BLOCK = 16  # pixels of a macroblock


class _Bits:
    """Bits of one unit (7.3.1), written one value after the other."""

    def __init__(self) -> None:
        self.text = ""

    def fixed(self, value: int, width: int) -> None:
        self.text += format(value, f"0{width}b")

    def golomb(self, *values: int) -> None:
        """Unsigned Exp-Golomb codes (9.1)."""
        for value in values:
            code = format(value + 1, "b")
            self.text += "0" * (len(code) - 1) + code

    def block(self, *planes: np.ndarray) -> None:
        """A macroblock of samples as they are (7.3.5)."""
        self.golomb(25)
        self.text += "0" * (-len(self.text) % 8)
        self.text += "".join(format(value, "08b") for plane in planes for value in plane.tobytes())

    def unit(self, head: int) -> bytes:
        """Start code, `head` and the bits, with what keeps start codes out of them (7.4.1)."""
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        content, zeros = bytearray(), 0
        for place in range(0, len(text), 8):
            value = int(text[place : place + 8], 2)
            if zeros >= 2 and value <= 3:
                content.append(3)
                zeros = 0
            content.append(value)
            zeros = zeros + 1 if value == 0 else 0
        return b"\0\0\0\1" + bytes([head]) + content


def _parameters() -> bytes:
    """Sequence and picture parameter sets: main profile, fields allowed, 8 bits of picture order."""
    sequence, picture = _Bits(), _Bits()
    for value in (77, 0, 30):
        sequence.fixed(value, 8)
    sequence.golomb(0, 0, 0, 4, 1)
    sequence.fixed(0, 1)
    sequence.golomb(SIZE[1] // BLOCK - 1, SIZE[0] // BLOCK // 2 - 1)
    sequence.fixed(0b00100, 5)  # not frames alone; direct inference of 8 x 8; no cropping, no further information
    picture.golomb(0, 0)
    picture.fixed(0, 2)
    picture.golomb(0, 0, 0)
    picture.fixed(0, 3)
    picture.golomb(0, 0, 0)
    picture.fixed(0b100, 3)
    return sequence.unit(0x67) + picture.unit(0x68)


def _field(planes: list[np.ndarray], parity: int, number: int) -> bytes:
    """The upper (`parity` 0, an instantaneous refresh) or lower field of a frame as one slice."""
    slice_ = _Bits()
    slice_.golomb(0, 7, 0)
    slice_.fixed(0, 4)
    slice_.fixed(0b10 | parity, 2)
    if not parity:
        slice_.golomb(number % 2)
    slice_.fixed(parity, 8)
    slice_.fixed(0, 1 if parity else 2)
    slice_.golomb(0, 1)
    luma, *chroma = (plane[parity::2] for plane in planes)
    for top in range(0, luma.shape[0], BLOCK):
        for left in range(0, luma.shape[1], BLOCK):
            small = [plane[top // 2 : top // 2 + 8, left // 2 : left // 2 + 8] for plane in chroma]
            slice_.block(luma[top : top + BLOCK, left : left + BLOCK], *small)
    return slice_.unit(0x61 if parity else 0x65)


def write_fields(path: Path, numbers) -> Path:
    """A bare H.264 stream of numbered frames, two fields each."""
    content, height, width = b"", *SIZE
    for index, number in enumerate(numbers):
        picture = av.VideoFrame.from_ndarray(numbered(number), format="rgb24").reformat(format="yuv420p").to_ndarray()
        colour = picture[height:].reshape(2, height // 2, width // 2)
        planes = [np.clip(picture[:height], 1, 254), *colour]
        content += b"\0\0\0\1\x09\x10" + _parameters() + _field(planes, 0, index) + _field(planes, 1, index)
    path.write_bytes(content)
    return path
