"""Location and header of frames: what can be known about them without decoding their pixels."""

import contextlib
import dataclasses
import functools
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from focal_jax.data import damage, tiff
from focal_jax.data.exif import FrameExif, read_exif
from focal_jax.data.formats import advice_for_content, unidentified
from focal_jax.data.names import printable
from focal_jax.data.unreadable import UnreadableError
from focal_jax.errors import InputError, one_line

OTHER_BYTES = {'B': 'L', 'L': 'B', 'N': 'B' if np.little_endian else 'L'}  # raw modes of the other byte order
_DEEP_COLOURS = ('RGB;16', 'RGBA;16', 'RGBX;16')
_DEEP_GREY_WITH_ALPHA = 'LA;16B'  # in PNG; Pillow converts it to RGBA
_GREY_MODES = ('1', 'L', 'LA', 'F')


@dataclasses.dataclass(frozen=True)
class FrameFile:
  """Location of a frame: a file, or a page of one.

  Attributes:
    path: the file.
    name: printable name of the frame, unique within a stack.
    page: page number, from 0.
    alone: the frame is the only one from its file, so that further pages are worth a note.
  """

  path: Path
  name: str
  page: int = 0
  alone: bool = True


@dataclasses.dataclass(frozen=True)
class FrameHeader:
  """Properties of a frame, read without decoding it.

  Attributes:
    file: its location.
    stored_size: width and height as stored, px.
    grey: it has no colours.
    deep: it has unsigned integers of 9 to 16 bits.
    exif: of the frame.
    pages: number of pages in its file.
    measured: its values may have any range: floating-point numbers, or signed or 32-bit integers.
    tiff_page: the page, if Pillow cannot decode it. None: it can.
  """

  file: FrameFile
  stored_size: tuple[int, int]
  grey: bool
  deep: bool
  exif: FrameExif
  pages: int
  measured: bool = False
  tiff_page: tiff.TiffPage | None = None

  def size(self, orientation: int) -> tuple[int, int]:
    """Width and height after rotation by this orientation, px."""
    return self.stored_size[::-1] if orientation >= 5 else self.stored_size


@contextlib.contextmanager
def errors_naming_file(path: Path) -> Iterator[None]:
  """Converts any error with an image to a one-line InputError that names its file."""
  try:
    # Pillow warns about large images, odd EXIF entries and so on, but decodes them.
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  except MemoryError as error:  # not the fault of the file
    raise InputError(f'{printable(path)}: not enough memory to decode it') from error
  except Exception as error:  # Decoders raise nearly anything on damaged files.
    reason = f'{type(error).__name__}: {one_line(error)}'
    if type(error) is ValueError or isinstance(error, OSError):  # their messages are readable
      reason = getattr(error, 'strerror', None) or one_line(error)
      reason = re.sub(r' \(\d+ bytes not processed\)', '', reason)
    start, damaged = b'', None
    with contextlib.suppress(OSError):
      with path.open('rb') as file:
        start = file.read(32)
      damaged = damage.damage_of(path)
    if isinstance(error, Image.UnidentifiedImageError):  # its message is about a Python object
      reason = unidentified(start)
    reason = damaged or advice_for_content(start) or reason
    raise UnreadableError(f'{printable(path)}: cannot be read as an image ({printable(reason)})', reason) from error


@contextlib.contextmanager
def open_page(path: Path, page: int = 0) -> Iterator[Image.Image]:
  """Opens a page of an image file, without decoding its pixels."""
  if path.stat().st_size == 0:
    raise ValueError('the file is empty')
  if page and not tiff.is_tiff(path):
    # Frames of an animation depend on earlier ones. It stays open, because the next one is usually read next.
    image = _opened(path, *tiff.file_version(path))
    image.seek(page)
    yield image
    return
  # Given a path, Pillow memory-maps some TIFFs, and then swaps height and width of rotated ones.
  with path.open('rb') as file, Image.open(file) as image:
    if page:
      image.seek(page)
    yield image


@functools.lru_cache(maxsize=1)
def _opened(path: Path, mtime_ns: int, size: int) -> Image.Image:
  return Image.open(io.BytesIO(path.read_bytes()))


def read_header(file: FrameFile) -> FrameHeader:
  """Header of a frame.

  Raises:
    UnreadableError: the file is not an image.
  """
  with errors_naming_file(file.path):
    pages = _pages_beyond_pillow(file.path, file.page)
    if pages is not None:
      return _header_of_page(file, pages)
    with open_page(file.path, file.page) as image:
      deep_alpha = is_deep_grey_with_alpha(image)
      measured = image.mode in ('I', 'F')
      deep = image.mode.startswith('I;') or is_deep_colour(image) or deep_alpha
      found = image.getexif()  # last: it decodes a PNG, and Pillow then forgets the raw mode
      exif = read_exif(found, image.size, image.info.get('xmp'))
      # Pillow rotates TIFFs itself, and already reports the rotated size.
      turned = image.format == 'TIFF' and exif.orientation >= 5
      return FrameHeader(
        file=file,
        stored_size=image.size[::-1] if turned else image.size,
        grey=image.mode in _GREY_MODES or image.mode.startswith('I') or deep_alpha,
        deep=deep,
        exif=exif,
        pages=_count_pictures(file.path, image),
        measured=measured,
      )


def _pages_beyond_pillow(path: Path, page: int) -> list[tiff.TiffPage] | None:
  """The pages of a TIFF if `data.tiff` must decode this one. None: Pillow does, or the file is not a TIFF.

  Pillow 13 misreads some 16-bit planes and values in non-native byte order without an error.

  Raises:
    ValueError: neither can decode it.
  """
  if not tiff.is_tiff(path):
    return None
  try:
    pages = tiff.read_pages(path)
    tiff.check_readable(pages[page])
    if pages[page].dtype != np.uint8 or pages[page].get(tiff.PLANES) == tiff.SEPARATE:
      return pages
  except (ValueError, IndexError) as error:
    reason = error
  else:
    reason = None
  try:
    with open_page(path, page):
      return None
  except Exception:
    if reason is None:
      return pages
    # The error about the TIFF's layout is more helpful than Pillow's, which tried all formats.
    raise reason from None


def _count_pictures(path: Path, image: Image.Image) -> int:
  """Number of images in a file, without previews."""
  if image.format == 'MPO':  # a second JPEG in a file is a preview, or for 3-D displays
    return 1
  if image.format == 'TIFF':
    with contextlib.suppress(ValueError):  # only Pillow reads it
      return len(tiff.pictures(tiff.read_pages(path)))
  return getattr(image, 'n_frames', 1)


def _header_of_page(file: FrameFile, pages: list[tiff.TiffPage]) -> FrameHeader:
  page = pages[file.page]
  exif = Image.Exif()
  with contextlib.suppress(Exception), file.path.open('rb') as opened:  # damaged EXIF counts as none
    exif.load_from_fp(opened, page.offset)
  facts = read_exif(exif, page.size, bytes(page.tags.get(tiff.XMP, b'')))
  orientation = page.get(tiff.ORIENTATION, 1)
  return FrameHeader(
    file=file,
    stored_size=page.size,
    grey=page.is_grey,
    deep=page.dtype == np.uint16,
    exif=dataclasses.replace(facts, orientation=orientation if orientation in range(1, 9) else 1),
    pages=len(tiff.pictures(pages)),
    measured=page.dtype not in (np.uint8, np.uint16),
    tiff_page=page,
  )


def raw_mode(tile: tuple) -> str:
  """Pillow's name for how the values of a tile are stored, such as 'RGB;16B'."""
  args = tile[3]
  return str(args if isinstance(args, str) else args[0]) if args else ''


def is_deep_colour(image: Image.Image) -> bool:
  """Whether its colours have 16 bits, of which Pillow decodes the upper 8."""
  modes = [raw_mode(tile) for tile in getattr(image, 'tile', [])]
  return bool(modes) and all(mode[:-1] in _DEEP_COLOURS and mode[-1] in OTHER_BYTES for mode in modes)


def is_deep_grey_with_alpha(image: Image.Image) -> bool:
  """Whether it is a PNG with 16 bits of grey and of alpha, which Pillow decodes with 8."""
  return [raw_mode(tile) for tile in getattr(image, 'tile', [])] == [_DEEP_GREY_WITH_ALPHA]
