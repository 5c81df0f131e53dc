"""JPEG files that are cut off or have a hole of zeros, as from copies that left out a block. Decoders need a marker at
the end, and fill in what is missing with grey, without an error; viewers show both. After a hole they go on at another
place of the picture.
"""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from focal_jax.data.formats import JPEG_START

_END = b'\xff\xd9'
_START_OF_SCAN = 0xDA
# The next marker after compressed data: FF 00 is a byte of it, and FF D0 .. FF D7 are between its parts.
_MARKER = re.compile(rb'\xff[\x01-\xcf\xd8-\xfe]')
# What may follow if nothing is missing: it is not read then. Decoded, it would be seen.
_FILLERS = (b'\x5a\x35' * 64, b'\x13\xc8' * 64)
_HOLE = bytes(64)  # in compressed data; even areas of optimised files are zeros, too
_LAST = 16  # number of bytes at the end of compressed data without which the picture is another


def is_jpeg(path: Path) -> bool:
  with path.open('rb') as file:
    return file.read(len(JPEG_START)) == JPEG_START


def is_cut(data: bytes) -> bool:
  """Whether a JPEG has no end: the file stops, or goes on with zeros, within its compressed data or before."""
  return _scans(data)[1]


def _scans(data: bytes) -> tuple[list[tuple[int, int]], bool]:
  """Start and end of each part with compressed data that has an end, and whether the file is cut."""
  place, scans = 2, []
  while True:
    while data[place : place + 2] == b'\xff\xff':  # fill bytes
      place += 1
    if place + 4 > len(data) or data[place] != 0xFF:
      return scans, True
    kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], 'big')
    place += 2 + length
    if kind == _START_OF_SCAN:
      found = _MARKER.search(data, place)
      if found is None:
        return scans, True
      scans.append((place, found.start()))
      if found[0] == _END:
        return scans, False
      place = found.start()


def has_hole(data: bytes) -> bool:
  """Whether zeros replace a part of the compressed data of a JPEG with an end: then these and the picture do not end
  at the same place.
  """
  for start, end in _scans(data)[0]:
    if data.find(_HOLE, start, end) < 0:
      continue
    before, after = data[:end], data[end:]
    try:
      picture = _decoded(data)
      without_last, with_more = (
        [np.array_equal(_decoded(part + filler + after), picture) for filler in _FILLERS]
        for part in (before[:-_LAST], before)
      )
    except (OSError, ValueError, SyntaxError):
      continue
    if all(without_last) or not all(with_more):
      return True
  return False


def with_end(data: bytes) -> bytes | None:
  """A cut JPEG with the marker at its end, if all of the picture is there; None: it is not cut, parts of it are
  missing, or it cannot be decoded.
  """
  if not is_cut(data):
    return None
  data = data.rstrip(b'\0')
  data += b'\0' * data.endswith(b'\xff')
  try:
    picture = _decoded(data + _END)
    if all(np.array_equal(_decoded(data + filler + _END), picture) for filler in _FILLERS):
      return data + _END
  except (OSError, ValueError, SyntaxError):
    pass
  return None


def _decoded(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data), formats=['JPEG']) as image:
    return np.asarray(image)
