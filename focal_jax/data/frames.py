"""Reads the frames of a stack: upright, 8-bit sRGB, all of one size.

16-bit pixels are scaled by the number of bits that the brightest frame uses, because cameras store 12 bits in 16;
single hot pixels are ignored. Floating-point and other wide pixels are scaled by their range.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from focal_jax.data.colour import ColourReader
from focal_jax.data.decode import FrameHeader, Levels, decode, naming, to_rgb
from focal_jax.data.exif import FrameExif
from focal_jax.data.names import listed, shown
from focal_jax.errors import InputError

Region = tuple[int, int, int, int]

# Maximum values below which a stack is noted as dark, and a frame of a brighter stack as nearly black.
_DARK, _BLACK = 32, 16
_WHITES = (1, 255, 1023, 4095, 16383, 65535)  # common white levels of values of any range
_LEAST_CONTRAST = 16  # maximum ratio of the largest 16-bit value to the range, above which an offset is removed
_HOT = 3e-4  # maximum share of hot pixels in a 16-bit frame
_MOST_DUPLICATES = 3  # duplicates that are listed one by one
_OUTSIDE, _MOST_SAMPLES = 0.001, 1_000_000  # share of pixels below black and above white; number of pixels sampled


@dataclasses.dataclass(frozen=True, eq=False)
class FrameReader:
  """Reads single frames of a stack at any size, so that a large stack need not be in memory.

  Attributes:
    headers: of the frames.
    orientations: EXIF orientation by which each frame is rotated.
    region: left, top, width and height of the part to read, px of the upright frames.
    levels: black and white levels for more than 8 bits.
    colours: converts to sRGB.
  """

  headers: tuple[FrameHeader, ...]
  orientations: tuple[int, ...]
  region: Region
  levels: Levels
  colours: ColourReader

  def size(self, max_side: int | None = None) -> tuple[int, int]:
    """Height and width of the frames if the longer side is at most `max_side` px; None: no limit."""
    return _limit_size(*self.region[2:], max_side)[::-1]

  def read(self, index: int, max_side: int | None = None) -> UInt8[np.ndarray, 'H W 3']:
    """One frame, sRGB 0 .. 255, at that size.

    Raises:
      InputError: its file cannot be decoded.
    """
    return self.read_with_alpha(index, max_side)[0]

  def read_with_alpha(self, index: int, max_side: int | None = None) -> tuple[UInt8[np.ndarray, 'H W 3'], bool]:
    """Same as `read`, and whether the frame had transparency."""
    header, size = self.headers[index], self.size(max_side)[::-1]
    decoded = decode(header, self.orientations[index])
    with naming(header.file.path):
      image = _crop(to_rgb(decoded, self.levels, header, self.colours), self.region)
    if image.size != size:
      # With `reducing_gap` Pillow averages whole blocks first: several times faster, with no visible difference.
      image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image), decoded.transparent

  def ordered(self, order: Sequence[int]) -> 'FrameReader':
    """The reader of the frames at these indices, in this order."""
    taken = {name: tuple(getattr(self, name)[n] for n in order) for name in ('headers', 'orientations')}
    return dataclasses.replace(self, **taken)


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
  """Frames in the order of their files.

  Attributes:
    images: sRGB, 0 .. 255, of the region, reduced.
    full_size: width and height of the upright frames in the files, px.
    region: left, top, width and height of the part that was read, px.
    exif: of each frame.
    notes: notes for the user, one sentence each.
    reader: reads single frames again, at another size.
  """

  images: UInt8[np.ndarray, 'N H W 3']
  full_size: tuple[int, int]
  region: Region
  exif: list[FrameExif]
  notes: list[str]
  reader: FrameReader


def orientations(headers: list[FrameHeader]) -> tuple[list[int], list[str]]:
  """The orientation by which each frame is rotated, and notes.

  A camera that points straight down writes a random orientation. The sensor does not rotate within a stack, so the
  first frame's orientation is used for all, unless a program has rotated some frames, which then have another shape.
  """
  own = [header.exif.orientation for header in headers]
  first = headers[0]
  if len(set(own)) == 1:
    return own, []
  if any(header.stored_size != first.stored_size for header in headers):
    return own, ['EXIF orientation and shape differ between the frames: each was rotated by its own orientation.']
  different = [header.file.name for header in headers if header.exif.orientation != own[0]]
  return [own[0]] * len(own), [
    f'EXIF orientation of {listed(different)} differs from that of {first.file.name}, which was used for all frames.'
  ]


def read_frames(headers: list[FrameHeader], region: Region | None, max_side: int | None) -> Frames:
  """Decodes two or more frames.

  Args:
    headers: of the frames.
    region: left, top, width and height of the part to read, in pixels of the upright frames. None: all.
    max_side: maximum of the longer side of that part in pixels; larger ones are reduced. None: no limit.

  Raises:
    InputError: a file cannot be decoded, sizes differ, or the region is not within the frames.
  """
  turns, notes = orientations(headers)
  full_size = headers[0].size(turns[0])
  for header, turn in zip(headers, turns, strict=True):
    if (size := header.size(turn)) != full_size:
      raise InputError(
        f'{shown(header.file.path)}: {size[0]} x {size[1]} pixels, '
        f'expected {full_size[0]} x {full_size[1]} as {headers[0].file.name}'
      )
  region = (0, 0, *full_size) if region is None else region
  _check_region(region, full_size)
  black, white, white_notes = _deep_levels([header for header in headers if header.deep])
  value_range, range_notes = _value_range([header for header in headers if header.measured])
  notes += white_notes + range_notes

  reader = FrameReader(tuple(headers), tuple(turns), region, Levels(white, black, value_range), ColourReader())
  # Filled in place, so that a stack of full-size photographs is not in memory twice.
  images, transparent = np.empty((len(headers), *reader.size(max_side), 3), np.uint8), False
  for place in range(len(headers)):
    images[place], alpha = reader.read_with_alpha(place, max_side)
    transparent |= alpha

  notes += reader.colours.notes
  names = [header.file.name for header in headers]
  if transparent:
    notes.append('Transparency was ignored.')
  if paged := [header.file.name for header in headers if header.file.alone and header.pages > 1]:
    notes.append(f'Of the images in {", ".join(paged)} only the first was read.')
  notes += _dark(images, names) + _duplicates(images, names)
  return Frames(images, full_size, region, [header.exif for header in headers], notes, reader)


def _check_region(region: Region, size: tuple[int, int]) -> None:
  left, top, width, height = region
  inside = min(left, top) >= 0 and left + width <= size[0] and top + height <= size[1]
  if width < 1 or height < 1 or not inside:
    raise InputError(
      f'region is {region}, expected left, top, width, height within the frames of {size[0]} x {size[1]} pixels'
    )


def _crop(image: Image.Image, region: Region) -> Image.Image:
  left, top, width, height = region
  return image if (width, height) == image.size else image.crop((left, top, left + width, top + height))


def _deep_levels(headers: list[FrameHeader]) -> tuple[int, int, list[str]]:
  """Black and white levels of 16-bit frames, and notes. 0 and the largest value of as many bits as the brightest frame
  uses, ignoring single hot pixels; or the range of the values if an offset would leave them only a few of 255 levels.
  """
  if not headers:
    return 0, 65535, []
  frames = [_reach(np.asarray(decode(header, 1).pixels)) for header in headers]
  whites, brightest, darkest, hot = zip(*frames, strict=True)
  white, highest, least = max(whites), max(brightest), min(darkest)
  if 0 < highest - least < highest / _LEAST_CONTRAST:
    return least, highest, [f'16-bit pixels range from {least} to {highest}, which became black and white.']
  if white == 65535:
    return 0, white, []
  notes = [f'16-bit pixels reach {highest} only: white was taken as {white}.']
  if any(hot):
    notes.append(f'Up to {max(hot)} pixels of a frame are brighter (hot pixels) and became white.')
  return 0, white, notes


def _reach(pixels: UInt16[np.ndarray, 'H W *C']) -> tuple[int, int, int, int]:
  """Value range of a frame: the largest value of the fewest bits exceeded only by isolated pixels, and hardly any of
  those; the largest pixel within it; the smallest pixel; and the number of pixels above it.
  """
  highest, least = int(pixels.max()), int(pixels.min())
  for bits in (8, 10, 12, 14):
    above = pixels >= 2**bits
    count = int(np.count_nonzero(above))
    together = above[:-1, :-1] & above[1:, :-1] & above[:-1, 1:] & above[1:, 1:]
    if count <= _HOT * above.size and not together.any():
      return 2**bits - 1, highest if not count else int(pixels[~above].max()), least, count
  return 65535, highest, least, 0


def _value_range(headers: list[FrameHeader]) -> tuple[tuple[float, float], list[str]]:
  """Black and white levels of frames whose values may have any range.

  Both are quantiles, so that single hot pixels and the overshoot of filters do not count. Black is 0 unless values are
  below it. White is a common white level (1, or the maximum of some number of bits) if the frames come close to it,
  otherwise their maximum.

  Raises:
    InputError: a frame has no finite value.
  """
  if not headers:
    return (0.0, 1.0), []
  lows, highs, ends, odd, counts = [], [], [], [], 0
  for header in headers:
    values = np.asarray(decode(header, 1).pixels)
    finite = values[np.isfinite(values)] if values.dtype.kind == 'f' else values.ravel()
    if not len(finite):
      raise InputError(f'{shown(header.file.path)}: all its pixels are NaN or infinite, expected numbers')
    if len(finite) < values.size:
      odd.append(header.file.name)
      counts += values.size - len(finite)
    low, high = np.quantile(
      finite[:: max(1, len(finite) // _MOST_SAMPLES)].astype(np.float64), (_OUTSIDE, 1 - _OUTSIDE)
    )
    lows.append(low)
    highs.append(high)
    ends.append((finite.min(), finite.max()))
  low, high = min(lows), max(highs)
  white = next((one for one in _WHITES if 0.125 * one < high <= one), high)
  black = low if low < -0.02 * abs(white) else 0.0
  if white <= black:  # all values are negative, or equal
    white = high if high > black else black + 1.0
  notes = []
  least, greatest = min(end[0] for end in ends), max(end[1] for end in ends)
  if (black, white) != (0.0, 1.0) or greatest > 1 or least < 0:
    notes.append(f'Pixels range from {least:g} to {greatest:g}: {black:g} was taken as black and {white:g} as white.')
  if odd:
    notes.append(f'{counts} values of {listed(odd)} are NaN or infinite: NaN was taken as black.')
  return (float(black), float(white)), notes


def _limit_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
  """Width and height with the longer one at most `max_side`, keeping the ratio up to rounding."""
  if max_side is None or max(width, height) <= max_side:
    return width, height
  scale = max_side / max(width, height)
  return max(1, round(width * scale)), max(1, round(height * scale))


def _dark(images: UInt8[np.ndarray, 'N H W 3'], names: list[str]) -> list[str]:
  brightest = images.max(axis=(1, 2, 3))
  if brightest.max() < _DARK:
    return [f'The frames are dark: their brightest value is {brightest.max()} of 255.']
  dark = [name for name, value in zip(names, brightest, strict=True) if value < _BLACK]
  return [f'Nearly black: {listed(dark)}.'] if dark else []


def _duplicates(images: UInt8[np.ndarray, 'N H W 3'], names: list[str]) -> list[str]:
  """A note for every frame that has the same pixels as an earlier one; a single note if there are many."""
  notes, seen = [], {}
  for name, image in zip(names, images, strict=True):
    digest = hashlib.blake2b(image).digest()
    if digest in seen:
      notes.append(f'{seen[digest]} and {name} have the same pixels.')
    seen.setdefault(digest, name)
  if len(seen) == 1:
    return ['All frames have the same pixels: there is no depth information.']
  if len(notes) > _MOST_DUPLICATES:
    return [f'{len(notes)} frames are duplicates, for example: {notes[0]}']
  return notes
