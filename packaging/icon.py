"""Draws the bundle's icon from the approval page's: `icon.py FILE`. The same bytes each time, and no library."""

import math
import re
import struct
import sys
import zlib
from itertools import pairwise
from pathlib import Path

SIZE = 512
SVG = Path(__file__).parent.parent / "fastn_mcp/channels/page/static/icon.svg"

Point = tuple[float, float]


def png(svg: str, size: int = SIZE) -> bytes:
    """A rounded square and a line on it, as `icon.svg` has them."""
    box, radius, fill, line, stroke, width = (
        float(re.findall(r'viewBox="0 0 ([\d.]+)', svg)[0]),
        float(re.findall(r'rx="([\d.]+)"', svg)[0]),
        _colour(re.findall(r'rx="[\d.]+" fill="#(\w+)"', svg)[0]),
        _line(re.findall(r' d="([^"]+)"', svg)[0]),
        _colour(re.findall(r'stroke="#(\w+)"', svg)[0]),
        float(re.findall(r'stroke-width="([\d.]+)"', svg)[0]),
    )
    scale = box / size
    rows = bytearray()
    for y in range(size):
        rows.append(0)  # this row has no filter
        for x in range(size):
            at = ((x + 0.5) * scale, (y + 0.5) * scale)
            inked = _covered((min(_distance(at, *part) for part in pairwise(line)) - width / 2) / scale)
            colour = (round(low + (high - low) * inked) for low, high in zip(fill, stroke, strict=True))
            rows += bytes((*colour, round(255 * _covered(_outside(at, box, radius) / scale))))
    header = struct.pack(">IIBBBBB", size, size, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _colour(code: str) -> tuple[int, ...]:
    wide = code if len(code) == 6 else "".join(letter * 2 for letter in code)
    return tuple(bytes.fromhex(wide))


def _line(path: str) -> list[Point]:
    """`M x y l dx dy dx dy`: the corners."""
    start, steps = path.removeprefix("M").split("l")
    corners = [_points(start)[0]]
    for dx, dy in _points(steps):
        corners.append((corners[-1][0] + dx, corners[-1][1] + dy))
    return corners


def _points(text: str) -> list[Point]:
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", text)]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _distance(at: Point, start: Point, end: Point) -> float:
    """From a stretch of the line."""
    across = (end[0] - start[0], end[1] - start[1])
    along = ((at[0] - start[0]) * across[0] + (at[1] - start[1]) * across[1]) / (across[0] ** 2 + across[1] ** 2)
    along = min(1.0, max(0.0, along))
    return math.dist(at, (start[0] + along * across[0], start[1] + along * across[1]))


def _outside(at: Point, box: float, radius: float) -> float:
    """How far outside the rounded square; less than zero within."""
    x, y = (abs(part - box / 2) - (box / 2 - radius) for part in at)
    return math.hypot(max(x, 0.0), max(y, 0.0)) + min(max(x, y), 0.0) - radius


def _covered(pixels: float) -> float:
    """How much of a pixel is covered whose middle is so far outside."""
    return min(1.0, max(0.0, 0.5 - pixels))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(png(SVG.read_text(encoding="utf-8")))
