"""Decodes single frames. Pillow decodes image files and TIFF pages with 8 bits per value, and `data.tiff` pages with
more.

Pillow returns only the upper bytes of 16-bit colours. They are decoded twice here, the second time with the byte order
swapped, which gives the lower bytes.
"""

import contextlib
import dataclasses
import functools
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from focal_jax.data import damage, jpeg_end, libtiff, tiff
from focal_jax.data.colour import ColourReader, profile_of
from focal_jax.data.exif import FrameExif, read_exif
from focal_jax.data.formats import advice_for_content, unidentified
from focal_jax.data.names import printable
from focal_jax.data.unreadable import UnreadableError
from focal_jax.errors import InputError, one_line

_DEEP_COLOURS = ('RGB;16', 'RGBA;16', 'RGBX;16')
_DEEP_GREY_WITH_ALPHA = 'LA;16B'  # in PNG; Pillow converts it to RGBA
_OTHER_BYTES = {'B': 'L', 'L': 'B', 'N': 'B' if np.little_endian else 'L'}
_ZEROS = 64  # number of zeros at the end of a JPEG that are suspicious
_GREY_MODES = ('1', 'L', 'LA', 'F')

# Transpositions by EXIF orientation, and the orientations that undo others.
_T = Image.Transpose
_TURNS = {
  2: _T.FLIP_LEFT_RIGHT,
  3: _T.ROTATE_180,
  4: _T.FLIP_TOP_BOTTOM,
  5: _T.TRANSPOSE,
  6: _T.ROTATE_270,
  7: _T.TRANSVERSE,
  8: _T.ROTATE_90,
}
_INVERSE = {6: 8, 8: 6}


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


@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
  """Pixels of a frame.

  Attributes:
    pixels: an image with 8 bits per value; or an array of any other type, [H, W] or [H, W, 3].
    inverted: whether 0 is white.
    profile: ICC profile.
    transparent: whether the frame has transparent pixels.
    damage: damage to the file, which was decoded nevertheless. None: no damage.
    unended: the file lacks its end, but none of the pixels.
  """

  pixels: Image.Image | Shaped[np.ndarray, '...']
  inverted: bool
  profile: bytes | None
  transparent: bool
  damage: str | None = None
  unended: bool = False


@dataclasses.dataclass(frozen=True)
class Levels:
  """Black and white levels of a stack.

  Attributes:
    white: for 9 to 16 bits.
    black: for 9 to 16 bits.
    range: black and white for values of any range (`FrameHeader.measured`).
  """

  white: int = 65535
  black: int = 0
  range: tuple[float, float] = (0.0, 1.0)


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
      deep_alpha = _is_deep_grey_with_alpha(image)
      measured = image.mode in ('I', 'F')
      deep = image.mode.startswith('I;') or _is_deep_colour(image) or deep_alpha
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


def decode(header: FrameHeader, orientation: int) -> Decoded:
  """Decodes a frame and rotates it by `orientation`, regardless of its own.

  Raises:
    UnreadableError: the file cannot be decoded.
  """
  with errors_naming_file(header.file.path):
    if jpeg_end.is_jpeg(header.file.path):
      return _decode_jpeg(header, orientation)
    if header.tiff_page is None and not tiff.is_tiff(header.file.path):
      if damaged := damage.damage_of(header.file.path):
        raise ValueError(damaged)
      return _decode(header, orientation)
    with libtiff.messages() as said:
      try:
        decoded = _decode(header, orientation)
      except OSError as error:
        problem = error
      else:
        problem = None
    reason = ' '.join(said).removesuffix('.')
    if problem is not None:
      # Pillow's message is only a number.
      if reason and 'not configured' not in reason:
        raise ValueError(f'it is damaged: {reason}') from problem
      if unread := _compression_of(header.file):
        raise ValueError(unread) from problem
      raise problem
    return dataclasses.replace(decoded, damage=reason or None)


def _decode_jpeg(header: FrameHeader, orientation: int) -> Decoded:
  """Decodes a JPEG, also one without the marker at its end, if all of the picture is there."""
  data = header.file.path.read_bytes()
  # Pillow also decodes compressed data that go on as zeros, as in files that were not copied completely.
  if not any(data[-_ZEROS:]) and jpeg_end.is_cut(data):
    problem = OSError(damage.UNFINISHED)
  else:
    try:
      decoded = _decode(header, orientation)
    except OSError as error:
      problem = error
    else:
      if jpeg_end.has_hole(data):
        raise ValueError('it is damaged: zeros replace a part of it')
      return decoded
  whole = jpeg_end.with_end(data)
  if whole is None:
    raise problem
  with Image.open(io.BytesIO(whole)) as image:
    pixels, profile = _turned(image, [orientation]), profile_of(image.info)
    pixels.load()
  return Decoded(pixels, False, profile, transparent=False, unended=True)


def _decode(header: FrameHeader, orientation: int) -> Decoded:
  file, own = header.file, header.exif.orientation
  if header.tiff_page is not None:
    return _decode_page(file.path, header.tiff_page, orientation)
  with open_page(file.path, file.page) as image:
    is_tiff = image.format == 'TIFF'
    inverted = is_tiff and image.mode.startswith('I') and image.tag_v2.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO
    deep_colour, deep_alpha = _is_deep_colour(image), _is_deep_grey_with_alpha(image)
    image.load()
    upper = image.copy()
    profile, transparent = profile_of(image.info), image.has_transparency_data
    if transparent and 'A' in image.getbands():
      transparent = image.getchannel('A').getextrema()[0] < 255
  turns = [] if is_tiff and own == orientation else [_INVERSE.get(own, own)] * is_tiff + [orientation]
  pixels: Image.Image | np.ndarray = _turned(upper, turns)
  if deep_colour:
    with open_page(file.path, file.page) as image:
      modes = [_raw_mode(tile) for tile in image.tile]
      image.tile = [
        _with_raw_mode(tile, mode[:-1] + _OTHER_BYTES[mode[-1]]) for tile, mode in zip(image.tile, modes, strict=True)
      ]
      image.load()
      lower = _turned(image, turns)
      pixels = (np.asarray(pixels).astype(np.uint16) << 8 | np.asarray(lower))[..., :3]  # Alpha is dropped.
  elif deep_alpha:
    with open_page(file.path, file.page) as image:
      # Decoded as RGBA, the bytes are unchanged: two of grey, two of alpha.
      image.tile = [_with_raw_mode(tile, 'RGBA') for tile in image.tile]
      image.load()
      raw = np.asarray(_turned(image, turns)).astype(np.uint16)
      pixels = raw[..., 0] << 8 | raw[..., 1]
  elif upper.mode.startswith(('I', 'F')):
    pixels = np.asarray(pixels)
  return Decoded(pixels, inverted, profile, transparent)


def _compression_of(file: FrameFile) -> str | None:
  """Description of the compression of a page that Pillow cannot decode, if that is the reason."""
  try:
    page = tiff.read_pages(file.path)[file.page]
  except (ValueError, IndexError):
    return None
  return tiff.compression_of(page) if page.get(tiff.COMPRESSION) not in tiff.USUAL_COMPRESSIONS else None


def _decode_page(path: Path, page: tiff.TiffPage, orientation: int) -> Decoded:
  values = tiff.read_pixels(path, page)
  channels = 1 if page.is_grey else 3
  pixels = _turned_array(values[..., :channels], orientation)
  inverted = page.is_grey and page.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO
  pixels = np.ascontiguousarray(pixels[..., 0] if page.is_grey else pixels)
  return Decoded(
    Image.fromarray(255 - pixels if inverted else pixels) if pixels.dtype == np.uint8 else pixels,
    inverted,
    page.tags.get(tiff.ICC_PROFILE),
    transparent=values.shape[-1] > channels,
  )


def to_rgb(decoded: Decoded, levels: Levels, header: FrameHeader, colours: ColourReader) -> Image.Image:
  """Converts to 8-bit sRGB. Values with more bits are mapped to 0 .. 255 by the `levels`. Alpha is dropped."""
  pixels = decoded.pixels
  if isinstance(pixels, np.ndarray):
    scaled = _scaled_range(pixels, *levels.range) if header.measured else _scaled(pixels, levels.black, levels.white)
    pixels = Image.fromarray(255 - scaled if decoded.inverted else scaled)
  return colours.convert(pixels, decoded.profile, header.exif.adobe_rgb, header.file.name)


def _scaled(pixels: Shaped[np.ndarray, '...'], black: int, white: int) -> UInt8[np.ndarray, '...']:
  above, span = np.clip(pixels, black, white).astype(np.uint32) - black, white - black
  return ((above * 255 + span // 2) // span).astype(np.uint8)


def _scaled_range(pixels: Shaped[np.ndarray, '...'], black: float, white: float) -> UInt8[np.ndarray, '...']:
  """Maps black .. white to 0 .. 255; NaN becomes black."""
  with np.errstate(invalid='ignore', over='ignore'):
    values = (pixels.astype(np.float64) - black) * (255 / (white - black))
  return np.round(np.clip(np.nan_to_num(values, nan=0.0, posinf=255.0, neginf=0.0), 0, 255)).astype(np.uint8)


def _turned(image: Image.Image, turns: list[int]) -> Image.Image:
  for turn in turns:
    if turn in _TURNS:
      image = image.transpose(_TURNS[turn])
  return image


def _turned_array(pixels: Shaped[np.ndarray, 'H W C'], orientation: int) -> Shaped[np.ndarray, 'h w C']:
  if orientation >= 5:
    pixels = pixels.swapaxes(0, 1)
  # Steps along rows and columns for the orientations 1 .. 8.
  rows, columns = ((1, 1), (1, -1), (-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1), (-1, 1))[orientation - 1]
  return pixels[::rows, ::columns]


def _raw_mode(tile: tuple) -> str:
  args = tile[3]
  return str(args if isinstance(args, str) else args[0]) if args else ''


def _is_deep_colour(image: Image.Image) -> bool:
  modes = [_raw_mode(tile) for tile in getattr(image, 'tile', [])]
  return bool(modes) and all(mode[:-1] in _DEEP_COLOURS and mode[-1] in _OTHER_BYTES for mode in modes)


def _is_deep_grey_with_alpha(image: Image.Image) -> bool:
  return [_raw_mode(tile) for tile in getattr(image, 'tile', [])] == [_DEEP_GREY_WITH_ALPHA]


def _with_raw_mode(tile: tuple, mode: str) -> tuple:
  args = tile[3]
  args = mode if isinstance(args, str) else (mode, *args[1:])
  return tile._replace(args=args) if hasattr(tile, '_replace') else (*tile[:3], args)
