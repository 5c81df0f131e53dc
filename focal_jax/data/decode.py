"""Decodes single frames. Pillow decodes image files and TIFF pages with 8 bits per value, and `data.tiff` pages with
more.

Pillow returns only the upper bytes of 16-bit colours. They are decoded twice here, the second time with the byte order
swapped, which gives the lower bytes.
"""

import dataclasses
import io
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from focal_jax.data import damage, jpeg_end, libtiff, tiff
from focal_jax.data.colour import ColourReader, profile_of
from focal_jax.data.header import (
  OTHER_BYTES,
  FrameFile,
  FrameHeader,
  errors_naming_file,
  is_deep_colour,
  is_deep_grey_with_alpha,
  open_page,
  raw_mode,
)

_ZEROS = 64  # number of zeros at the end of a JPEG that are suspicious

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
    deep_colour, deep_alpha = is_deep_colour(image), is_deep_grey_with_alpha(image)
    image.load()
    upper = image.copy()
    profile, transparent = profile_of(image.info), image.has_transparency_data
    if transparent and 'A' in image.getbands():
      transparent = image.getchannel('A').getextrema()[0] < 255
  turns = [] if is_tiff and own == orientation else [_INVERSE.get(own, own)] * is_tiff + [orientation]
  pixels: Image.Image | np.ndarray = _turned(upper, turns)
  if deep_colour:
    with open_page(file.path, file.page) as image:
      modes = [raw_mode(tile) for tile in image.tile]
      image.tile = [
        _with_raw_mode(tile, mode[:-1] + OTHER_BYTES[mode[-1]]) for tile, mode in zip(image.tile, modes, strict=True)
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


def _with_raw_mode(tile: tuple, mode: str) -> tuple:
  args = tile[3]
  args = mode if isinstance(args, str) else (mode, *args[1:])
  return tile._replace(args=args) if hasattr(tile, '_replace') else (*tile[:3], args)
