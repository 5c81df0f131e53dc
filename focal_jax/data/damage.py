"""Damaged PNG, WebP, AVIF and HEIC files. Decoders fill in some damage without an error, or give reasons that do not
help. JPEG files have `data.jpeg_end`, and TIFF files `data.libtiff`.
"""

import functools
import zlib
from collections.abc import Iterator
from pathlib import Path

from focal_jax.data import tiff

TRUNCATED = 'image file is truncated'
UNFINISHED = f'{TRUNCATED}: its end consists of zeros'  # of copies and downloads that reserve the space first
_PNG_START = b'\x89PNG\r\n\x1a\n'
_ZEROS = 64  # number of zeros at the end of compressed pixels that are suspicious
# Plain areas at the end of a lossy WebP are zeros, too, but few: at most 6 % of the file in black images.
_LOSSY_ZEROS = 0.09
_AVIF = (b'avif', b'avis')  # in HEIC, metadata may follow the pixels, and end with zeros
_BOXES = (b'ftyp', b'meta', b'moov', b'mdat')  # anything may follow them


def damage_of(path: Path) -> str | None:
  """Why some or all pixels of a PNG, WebP, AVIF or HEIC file are missing or wrong; None: no damage was found, or it is
  another format.

  Raises:
    OSError: the file cannot be read.
  """
  return _damage_of(path, *tiff.file_version(path))


@functools.lru_cache(maxsize=1)  # a stack in one file is checked once per page
def _damage_of(path: Path, mtime_ns: int, size: int) -> str | None:
  with path.open('rb') as file:
    start = file.read(12)
    check = (
      _damage_of_png
      if start.startswith(_PNG_START)
      else _damage_of_webp
      if start[:4] == b'RIFF' and start[8:] == b'WEBP'
      else _damage_of_boxes
      if start[4:8] == b'ftyp'
      else None
    )
    return check and check(start + file.read())


def _damage_of_png(data: bytes) -> str | None:
  """Checksums of the compressed pixels, which Pillow does not compare."""
  pixels, agree, place = [], True, len(_PNG_START)
  while place + 12 <= len(data):
    end = place + 8 + int.from_bytes(data[place : place + 4], 'big')
    if data[place + 4 : place + 8] == b'IDAT' and end + 4 <= len(data):
      pixels.append(data[place + 8 : end])
      agree &= zlib.crc32(data[place + 4 : end]) == int.from_bytes(data[end : end + 4], 'big')
    place = end + 4
  if agree:
    return None
  try:
    zlib.decompress(b''.join(pixels))  # has a checksum of its own
  except zlib.error:
    return UNFINISHED if not any(data[-_ZEROS:]) else 'it is damaged: a checksum does not agree'
  return None


def _damage_of_webp(data: bytes) -> str | None:
  if int.from_bytes(data[4:8], 'little') + 8 > len(data):
    return TRUNCATED
  place = 12
  while place + 8 <= len(data):
    kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], 'little')
    pixels = data[place + 8 : place + 8 + length]
    least = max(_ZEROS, round(_LOSSY_ZEROS * length)) if kind == b'VP8 ' else _ZEROS
    if kind in (b'VP8 ', b'VP8L') and length > least and not any(pixels[-least:]):
      return UNFINISHED
    place += 8 + length + length % 2
  return None


def _damage_of_boxes(data: bytes) -> str | None:
  """Damage of an ISO base media file, such as AVIF and HEIC."""
  for kind, place, end in _boxes(data):
    if kind in _BOXES and end > len(data):
      return TRUNCATED
    pixels = data[place:end] if kind == b'mdat' and data[8:12] in _AVIF else b''
    if len(pixels) > _ZEROS and not any(pixels[-_ZEROS:]):
      return UNFINISHED
  return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
  """Kind, start of the content and end of each box."""
  place = 0
  while place + 8 <= len(data):
    length, start = int.from_bytes(data[place : place + 4], 'big'), place + 8
    if length == 1:
      length, start = int.from_bytes(data[start : start + 8], 'big'), place + 16
    end = place + length if length else len(data)
    yield data[place + 4 : place + 8], start, end
    place = max(end, start)
