"""Reads TIFF pages that Pillow does not: floating-point values and integers of any size, including packed ones of 9 to
15 bits, with any number of channels, interleaved or planar, in strips or tiles, in classic TIFF and BigTIFF of either
byte order.

Pillow is used only to decompress single strips and tiles.
"""

import functools
import io
import itertools
import math
import re
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image

_STARTS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # + for BigTIFF
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, DESCRIPTION = 256, 257, 258, 259, 262, 270
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, PLANES = 273, 274, 277, 278, 279, 284
PREDICTOR, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 317, 322, 323, 324, 325
SUBFILE, FILL_ORDER, EXTRA_SAMPLES, SAMPLE_FORMAT, XMP, ICC_PROFILE = 254, 266, 338, 339, 700, 34675

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2  # values of PHOTOMETRIC
REDUCED = 1  # bit of SUBFILE: the page is a preview of another
_RAW_MOSAIC = (32803, 34892)
UNCOMPRESSED, SEPARATE = 1, 2  # values of COMPRESSION and PLANES
_DEFLATE, _FROM_PILLOW = (8, 32946), (5, 32773, 34925, 50000)  # LZW, PackBits, LZMA, Zstandard
USUAL_COMPRESSIONS = (UNCOMPRESSED, *_DEFLATE, *_FROM_PILLOW[:2], 7)  # if one of these cannot be read, it is damaged
_NAMES = {
  **dict.fromkeys((2, 3, 4), 'fax'),
  **dict.fromkeys((6, 7, 34892), 'JPEG'),
  **dict.fromkeys((33003, 33005, 34712), 'JPEG 2000'),
  34887: 'LERC',
  50001: 'WebP',
  50002: 'JPEG XL',
  52546: 'JPEG XL',
}
_HORIZONTAL, _FLOATING_POINT = 2, 3  # values of PREDICTOR
_KINDS = {1: 'u', 2: 'i', 3: 'f'}  # NumPy kinds by SAMPLE_FORMAT
# `struct` formats of the tag types; text and undefined data are bytes.
_TYPES = dict(zip((1, 3, 4, 6, 8, 9, 11, 12, 13, 16, 17, 18), 'BHIbhifdIQqQ', strict=True)) | {2: 's', 7: 's'}
_MAX_ENTRIES, _MAX_PAGES = 4096, 1_000_000  # maximum in files that are not damaged


class TiffPage(NamedTuple):
  """A page as described by its tags.

  Attributes:
    tags: numbers or bytes, by tag number.
    order: byte order, '<' or '>'.
    offset: offset of the tags in the file, bytes.
  """

  tags: dict[int, tuple | bytes]
  order: str
  offset: int

  def get(self, tag: int, default: Any = None) -> Any:
    """The first value of a tag, or `default` if it is missing."""
    values = self.tags.get(tag)
    return default if not values else values[0]

  @property
  def size(self) -> tuple[int, int]:
    """Width and height as stored."""
    return int(self.get(WIDTH, 0)), int(self.get(HEIGHT, 0))

  @property
  def channels(self) -> int:
    return int(self.get(SAMPLES, 1))

  @property
  def packed_bits(self) -> int | None:
    """Bits per value, if values of 9 to 15 bits are packed without gaps. None: values are whole bytes."""
    bits, kind = self.tags.get(BITS, (1,)), self.tags.get(SAMPLE_FORMAT, (1,))
    return int(bits[0]) if len(set(bits)) == 1 and 8 < bits[0] < 16 and set(kind) == {1} else None

  @property
  def dtype(self) -> np.dtype:
    """Type of the stored values after unpacking.

    Raises:
      ValueError: NumPy has no such type, or channels differ.
    """
    if self.packed_bits:
      return np.dtype(np.uint16)
    bits, kind = self.tags.get(BITS, (1,)), self.tags.get(SAMPLE_FORMAT, (1,))
    if len(set(bits)) != 1 or len(set(kind)) != 1 or bits[0] not in (8, 16, 32, 64) or kind[0] not in _KINDS:
      raise ValueError(f'{bits} bits of sample format {kind}, expected 8 to 16, 32 or 64 of one kind')
    if (kind[0], bits[0]) == (3, 8):
      raise ValueError('floating-point values of 8 bits, expected 16, 32 or 64')
    return np.dtype(f'{self.order}{_KINDS[kind[0]]}{bits[0] // 8}')

  @property
  def description(self) -> str:
    """The image description, '' if there is none."""
    text = bytes(self.tags.get(DESCRIPTION) or b'').split(b'\0')[0]
    try:
      return text.decode()
    except UnicodeDecodeError:
      return text.decode('latin-1')

  @property
  def is_grey(self) -> bool:
    """Whether the first channel is grey; any others are alpha or similar."""
    return int(self.get(PHOTOMETRIC, BLACK_IS_ZERO)) in (WHITE_IS_ZERO, BLACK_IS_ZERO)


def pictures(pages: list[TiffPage]) -> list[int]:
  """Indices of the pages without previews: pages of the largest size that several have, otherwise the largest one. The
  others are thumbnails or the levels of a pyramid.
  """
  places = [n for n, page in enumerate(pages) if not int(page.get(SUBFILE, 0)) & REDUCED] or list(range(len(pages)))
  counts = Counter(pages[n].size for n in places)
  several = [size for size, count in counts.items() if count > 1]
  size = max(several or counts, key=math.prod)
  return [n for n in places if pages[n].size == size]


def compression_of(page: TiffPage) -> str:
  """Description of an unsupported compression, for messages."""
  number = int(page.get(COMPRESSION, UNCOMPRESSED))
  name = f' ({_NAMES[number]})' if number in _NAMES else ''
  return f'compression {number}{name} of {page.get(BITS, 1)}-bit values, expected none, or LZW, ZIP or JPEG of 8 bits'


def is_tiff(path: Path) -> bool:
  with path.open('rb') as file:
    return file.read(4) in _STARTS


def read_pages(path: Path) -> list[TiffPage]:
  """The pages of a file.

  Raises:
    ValueError: it is not a TIFF, or damaged.
  """
  return _read_pages(path, *file_version(path))[0]


def is_truncated(path: Path) -> bool:
  """Whether a file has a link to a page that is missing: it is truncated, or damaged."""
  return _read_pages(path, *file_version(path))[1]


def file_version(path: Path) -> tuple[int, int]:
  """Modification time and size, which tell whether what was read of a file is still true."""
  status = path.stat()
  return status.st_mtime_ns, status.st_size


@functools.lru_cache(maxsize=1)  # a stack reads its file once per page
def _read_pages(path: Path, mtime_ns: int, size: int) -> tuple[list[TiffPage], bool]:
  with path.open('rb') as file:
    head = file.read(16)
    if head[:4] not in _STARTS:
      raise ValueError('not a TIFF')
    order, big = '<' if head[:2] == b'II' else '>', b'+' in head[2:4]
    number, count = ('Q', 'Q') if big else ('I', 'H')
    (offset,) = struct.unpack_from(f'{order}{number}', head, 8 if big else 4)
    pages, seen, cut = [], set(), False
    while offset and offset not in seen and len(pages) < _MAX_PAGES:
      seen.add(offset)
      start = offset
      try:
        file.seek(start)
        (entries,) = _unpack(file, f'{order}{count}')
        if not 0 < entries <= _MAX_ENTRIES:
          raise ValueError(f'a page has {entries} tags')
        table = file.read(entries * (20 if big else 12))
        (offset,) = _unpack(file, f'{order}{number}')
        pages.append(TiffPage(_read_tags(file, table, order, big), order, start))
      except (ValueError, OverflowError):
        if not pages:
          raise
        cut = True
        break
  return _pages_of_imagej(pages[0]) if len(pages) == 1 else pages, cut


def _pages_of_imagej(page: TiffPage) -> list[TiffPage]:
  """Splits a page into the consecutive images that ImageJ writes without their own tags in files of 4 GB and more."""
  count = re.match(r'ImageJ=.*?^images=(\d+)$', page.description, re.DOTALL | re.MULTILINE)
  offsets, lengths = page.tags.get(STRIP_OFFSETS, ()), page.tags.get(STRIP_BYTES, ())
  together = all(a + n == b for a, n, b in zip(offsets, lengths, offsets[1:], strict=False))
  if count is None or len(offsets) != len(lengths) or not together or page.get(COMPRESSION, 1) != UNCOMPRESSED:
    return [page]
  size = sum(lengths)
  return [
    page._replace(tags={**page.tags, STRIP_OFFSETS: tuple(offset + n * size for offset in offsets)})
    for n in range(min(int(count[1]), _MAX_PAGES))
  ]


def _unpack(file: BinaryIO, layout: str) -> tuple:
  data = file.read(struct.calcsize(layout))
  if len(data) < struct.calcsize(layout):
    raise ValueError('the file is truncated')
  return struct.unpack(layout, data)


def _read_tags(file: BinaryIO, table: bytes, order: str, big: bool) -> dict[int, tuple | bytes]:
  entry, inline = (20, 8) if big else (12, 4)
  tags = {}
  for start in range(0, len(table) - entry + 1, entry):
    tag, kind, count = struct.unpack_from(f'{order}HH{"Q" if big else "I"}', table, start)
    if kind not in _TYPES:
      continue
    layout = f'{order}{count}{_TYPES[kind]}'
    size = struct.calcsize(layout)
    data = table[start + entry - inline : start + entry]
    if size > inline:
      file.seek(struct.unpack(f'{order}{"Q" if big else "I"}', data)[0])
      data = file.read(size)
    if len(data) >= size:
      values = struct.unpack(layout, data[:size])
      tags[tag] = values[0] if _TYPES[kind] == 's' else values
  return tags


def check_readable(page: TiffPage) -> None:
  """Raises ValueError, with the reason, if `read_pixels` does not support the page."""
  (width, height), channels = page.size, page.channels
  dtype = page.dtype
  if min(width, height, channels) < 1:
    raise ValueError(f'{width} x {height} pixels of {channels} channels, expected at least one of each')
  if Image.MAX_IMAGE_PIXELS is not None and width * height > 2 * Image.MAX_IMAGE_PIXELS:
    raise Image.DecompressionBombError(f'{width} x {height} pixels')
  if int(page.get(PHOTOMETRIC, BLACK_IS_ZERO)) in _RAW_MOSAIC:
    raise ValueError('raw sensor data: develop it with a raw converter')
  if page.packed_bits and (int(page.get(PREDICTOR, 1)) != 1 or int(page.get(FILL_ORDER, 1)) != 1):
    raise ValueError(f'packed {page.packed_bits}-bit values with a predictor or least significant bit first')
  photometric, compression = int(page.get(PHOTOMETRIC, BLACK_IS_ZERO)), int(page.get(COMPRESSION, UNCOMPRESSED))
  if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or (photometric == RGB and channels < 3):
    raise ValueError(f'photometric interpretation {photometric} of {channels} channels, expected grey or RGB')
  if compression not in (UNCOMPRESSED, *_DEFLATE, *_FROM_PILLOW):
    raise ValueError(compression_of(page))
  predictor = int(page.get(PREDICTOR, 1))
  if predictor not in (1, _HORIZONTAL, _FLOATING_POINT) or (predictor == _FLOATING_POINT and dtype.kind != 'f'):
    raise ValueError(f'predictor {predictor} for {dtype.name} values')


def read_pixels(path: Path, page: TiffPage) -> Shaped[np.ndarray, 'H W C']:
  """The values of a page as stored, in native byte order.

  Raises:
    ValueError: the layout of the page is not supported, or it is damaged.
  """
  check_readable(page)
  (width, height), channels = page.size, page.channels
  tiled = TILE_WIDTH in page.tags
  if tiled:
    columns, rows = int(page.get(TILE_WIDTH)), int(page.get(TILE_HEIGHT, 0))
  else:
    columns, rows = width, min(int(page.get(ROWS, height)), height)
  if min(columns, rows) < 1:
    raise ValueError(f'strips or tiles of {columns} x {rows} pixels')
  offsets = page.tags.get(TILE_OFFSETS if tiled else STRIP_OFFSETS, ())
  lengths = page.tags.get(TILE_BYTES if tiled else STRIP_BYTES, ())
  planes = channels if page.get(PLANES, 1) == SEPARATE else 1
  across, down = math.ceil(width / columns), math.ceil(height / rows)
  if not lengths and len(offsets) == 1 and page.get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED:
    lengths = (height * _row_bytes(page, width * channels),)
  if min(len(offsets), len(lengths)) < planes * across * down:
    raise ValueError(f'{min(len(offsets), len(lengths))} strips or tiles, expected {planes * across * down}')
  values = np.empty((height, width, channels), page.dtype.newbyteorder('='))
  with path.open('rb') as file:
    pieces = itertools.product(range(planes), range(down), range(across))
    for (plane, row, column), offset, length in zip(pieces, offsets, lengths, strict=False):
      top, left = row * rows, column * columns
      file.seek(offset)
      # The last strip has the remaining rows; tiles all have one size.
      tall = rows if tiled else min(rows, height - top)
      piece = _piece(page, file.read(length), (tall, columns, channels // planes))
      part = values[top : top + rows, left : left + columns, plane : plane + channels // planes]
      part[:] = piece[: part.shape[0], : part.shape[1]]
  return values


def _piece(page: TiffPage, data: bytes, shape: tuple[int, int, int]) -> Shaped[np.ndarray, 'h w c']:
  rows, row_bytes = shape[0], _row_bytes(page, shape[1] * shape[2])
  data = _decompressed(data, int(page.get(COMPRESSION, UNCOMPRESSED)), rows, row_bytes)
  if len(data) < rows * row_bytes:
    raise ValueError('the file is truncated')
  data = np.frombuffer(data, np.uint8, rows * row_bytes)
  if page.packed_bits:
    return _unpacked(data.reshape(rows, row_bytes), page.packed_bits, shape[1] * shape[2]).reshape(shape)
  predictor = int(page.get(PREDICTOR, 1))
  if predictor == _FLOATING_POINT:
    # Byte differences. A row has the most significant bytes of all values first, in either byte order of the file.
    whole = np.cumsum(data.reshape(rows, -1, shape[2]), axis=1, dtype=np.uint8)
    planes = whole.reshape(rows, page.dtype.itemsize, -1)
    return np.ascontiguousarray(planes.swapaxes(1, 2)).view(page.dtype.newbyteorder('>')).reshape(shape)
  values = data.view(page.dtype).reshape(shape)
  if predictor == _HORIZONTAL:  # differences of bit patterns, also for floating-point values
    unsigned = np.dtype(f'u{page.dtype.itemsize}')
    bits = values.view(unsigned.newbyteorder(page.order)).astype(unsigned)
    return np.cumsum(bits, axis=1, dtype=unsigned).view(page.dtype.newbyteorder('='))
  return values


def _row_bytes(page: TiffPage, count: int) -> int:
  """Bytes of a row of that many values; each row starts at a whole byte."""
  return -(-count * page.packed_bits // 8) if page.packed_bits else count * page.dtype.itemsize


def _unpacked(rows: UInt8[np.ndarray, 'h b'], bits: int, count: int) -> UInt16[np.ndarray, 'h n']:
  """The first `count` values of each row of packed bits, most significant bit first."""
  first, shift = np.divmod(np.arange(count) * bits, 8)
  rows = np.pad(rows, ((0, 0), (0, 2)))  # a value spans up to three bytes
  three = rows[:, first].astype(np.uint32) << 16 | rows[:, first + 1].astype(np.uint32) << 8 | rows[:, first + 2]
  return (three >> (24 - bits - shift).astype(np.uint32) & (2**bits - 1)).astype(np.uint16)


def _decompressed(data: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
  if compression == UNCOMPRESSED:
    return data
  if compression in _DEFLATE:
    try:
      return zlib.decompressobj().decompress(data, rows * row_bytes)
    except zlib.error as error:
      raise ValueError(f'damaged: {error}') from error
  # Pillow decodes it as a TIFF with one strip of 8-bit grey.
  tags = {WIDTH: row_bytes, HEIGHT: rows, BITS: 8, COMPRESSION: compression, PHOTOMETRIC: BLACK_IS_ZERO}
  tags |= {STRIP_OFFSETS: 0, SAMPLES: 1, ROWS: rows, STRIP_BYTES: len(data)}
  tags[STRIP_OFFSETS] = 8 + 2 + 12 * len(tags) + 4
  table = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items())
  picture = struct.pack('<2sHIH', b'II', 42, 8, len(tags)) + table + bytes(4) + data
  with Image.open(io.BytesIO(picture), formats=['TIFF']) as image:
    return image.tobytes()
