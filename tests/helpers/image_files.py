"""Image files that Pillow does not write, made of bytes by hand."""

import struct
import zlib
from pathlib import Path

import numpy as np


def write_png(path: Path, levels: np.ndarray, depth: int, kind: int, key: bytes = b"", palette: bytes = b"") -> Path:
    """Write levels ``(H, W)`` or ``(H, W, C)``: kind 0 is grey, 2 RGB, 3 a palette, 4 grey with alpha, 6 RGBA."""
    height, width = levels.shape[:2]
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in levels]
    elif depth == 8:
        rows = [row.astype(np.uint8).tobytes() for row in levels]
    else:
        bits = ((levels[..., None] >> np.arange(depth)[::-1]) & 1).reshape(height, -1)
        rows = [np.packbits(row).tobytes() for row in bits.astype(np.uint8)]
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0), b"PLTE": palette, b"tRNS": key}
    chunks |= {b"IDAT": zlib.compress(b"".join(b"\0" + row for row in rows)), b"IEND": b""}
    made = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks.items():
        if data or name == b"IEND":
            made += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(made)
    return path


def write_tiff(path: Path, samples: np.ndarray, photometric: int, order: str = "<", **tags: int) -> Path:
    """Write samples ``(H, W)`` or ``(H, W, C)`` of 16 bits, uncompressed; ``order`` is that of the bytes.

    Photometric 0 is white at zero, 1 black at zero, 2 RGB, 5 CMYK. Tags: ``bits`` (12: packed), ``extra`` (1:
    multiplied by alpha, 2: not), ``orientation``.
    """
    height, width = samples.shape[:2]
    channels = samples.shape[2] if samples.ndim == 3 else 1
    bits = tags.get("bits", 16)
    if bits == 12:
        shifts = np.arange(12)[::-1]
        pixels = np.packbits(((samples[..., None] >> shifts) & 1).reshape(height, -1).astype(np.uint8), 1).tobytes()
    else:
        pixels = samples.astype(f"{order}u2").tobytes()
    start = 8 + len(pixels) + 2 * channels
    entries = [(256, 4, 1, width), (257, 4, 1, height)]
    entries += [(258, 3, channels, 8 + len(pixels) if channels > 2 else bits)]
    entries += [(259, 3, 1, 1), (262, 3, 1, photometric), (273, 4, 1, 8), (274, 3, 1, tags.get("orientation", 1))]
    entries += [(277, 3, 1, channels), (278, 4, 1, height), (279, 4, 1, len(pixels))]
    entries += [(338, 3, 1, tags["extra"])] if "extra" in tags else []
    made = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, start)
    made += pixels + struct.pack(f"{order}{channels}H", *[bits] * channels) + struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        packed = struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value)
        made += struct.pack(f"{order}HHI", tag, kind, count) + packed
    path.write_bytes(made + struct.pack(f"{order}I", 0))
    return path
