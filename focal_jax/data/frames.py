"""Reads the frames of a stack: upright, sRGB of 8 bits, all of one size.

Pixels of 16 bits are scaled by what the brightest frame needs, as cameras put 12 bits into 16, single hot pixels left
aside; floating-point ones and other wide ones by what range they have.
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

# Brightest values below which a stack is worth a remark, and a frame among brighter ones.
_DARK, _BLACK = 32, 16
_WHITES = (1, 255, 1023, 4095, 16383, 65535)  # of values that may have any range
_LEAST_CONTRAST = 16  # times the range of the pixels of 16 bits that their greatest may be
_HOT = 3e-4  # share of the pixels of 16 bits that may be hot
_MOST_DUPLICATES = 3  # that are told one by one
_OUTSIDE, _MOST_SAMPLES = 0.001, 1_000_000  # share of the pixels beyond black and beyond white; how many are looked at


@dataclasses.dataclass(frozen=True, eq=False)
class FrameReader:
  """Reads single frames of a stack, in any size, so that not all of a large one need be in memory.

  Attributes:
    headers: of the frames.
    orientations: by which each is turned upright.
    region: left, top, width and height of what is read, px of the upright frames.
    levels: what becomes black and white in more than 8 bits.
    colours: to sRGB.
  """

  headers: tuple[FrameHeader, ...]
  orientations: tuple[int, ...]
  region: Region
  levels: Levels
  colours: ColourReader

  def size(self, max_side: int | None = None) -> tuple[int, int]:
    """Height and width of the frames with the longer side at most `max_side` px; None: no limit."""
    return _limit_size(*self.region[2:], max_side)[::-1]

  def read(self, index: int, max_side: int | None = None) -> UInt8[np.ndarray, 'H W 3']:
    """A frame, sRGB, 0 .. 255, of that size.

    Raises:
      InputError: its file cannot be decoded.
    """
    return self.read_with_alpha(index, max_side)[0]

  def read_with_alpha(self, index: int, max_side: int | None = None) -> tuple[UInt8[np.ndarray, 'H W 3'], bool]:
    """`read`, and whether there was transparency."""
    header, size = self.headers[index], self.size(max_side)[::-1]
    decoded = decode(header, self.orientations[index])
    with naming(header.file.path):
      image = _crop(to_rgb(decoded, self.levels, header, self.colours), self.region)
    if image.size != size:
      # With `reducing_gap` Pillow averages whole blocks first: several times faster, and no difference to see.
      image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image), decoded.transparent

  def ordered(self, order: Sequence[int]) -> 'FrameReader':
    """Of the frames of these indices, in this order."""
    taken = {name: tuple(getattr(self, name)[n] for n in order) for name in ('headers', 'orientations')}
    return dataclasses.replace(self, **taken)


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
  """Frames in the order of their files.

  Attributes:
    images: sRGB, 0 .. 255, of the region, reduced.
    full_size: width and height of the upright frames in the files, px.
    region: left, top, width and height of what was read of them, px.
    exif: of each frame.
    notes: remarks for the user, one sentence each.
    reader: reads them again, in another size.
  """

  images: UInt8[np.ndarray, 'N H W 3']
  full_size: tuple[int, int]
  region: Region
  exif: list[FrameExif]
  notes: list[str]
  reader: FrameReader


def orientations(headers: list[FrameHeader]) -> tuple[list[int], list[str]]:
  """How each frame is turned upright, and what to say about it.

  A camera that looks straight down writes an orientation by chance. The sensor did not turn between the frames of a
  stack, so the first one's holds for all, unless some were turned by a program since and are stored in another shape.
  """
  own = [header.exif.orientation for header in headers]
  first = headers[0]
  if len(set(own)) == 1:
    return own, []
  if any(header.stored_size != first.stored_size for header in headers):
    return own, ['EXIF orientation differs between the frames, and so does their shape: each was turned by its own.']
  different = [header.file.name for header in headers if header.exif.orientation != own[0]]
  return [own[0]] * len(own), [
    f'EXIF orientation of {listed(different)} differs from that of {first.file.name}, which was used for all frames.'
  ]


def read_frames(headers: list[FrameHeader], region: Region | None, max_side: int | None) -> Frames:
  """Decodes two or more frames.

  Args:
    headers: of the frames.
    region: left, top, width and height of the part to read, in pixels of the upright frames. None: all.
    max_side: limit of the longer side of that part in pixels; larger ones are shrunk. None: no limit.

  Raises:
    InputError: a file cannot be decoded, sizes differ, or the region does not lie within the frames.
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
  # Filled in place, for a stack of full-size photographs should not be in memory twice.
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
  """The values that become black and white in 16 bits: 0 and the greatest of as many bits as the brightest frame needs,
  but for single hot pixels; or, if all pixels lie upon an offset that leaves them a few levels of 255, their ends.
  """
  if not headers:
    return 0, 65535, []
  frames = [_reach(np.asarray(decode(header, 1).pixels)) for header in headers]
  whites, brightest, darkest, hot = zip(*frames, strict=True)
  white, highest, least = max(whites), max(brightest), min(darkest)
  if 0 < highest - least < highest / _LEAST_CONTRAST:
    return least, highest, [f'16-bit pixels range from {least} to {highest}: they became black and white.']
  if white == 65535:
    return 0, white, []
  notes = [f'16-bit pixels reach {highest} only: white was taken as {white}.']
  if any(hot):
    notes.append(f'Single pixels, {max(hot)} of a frame, are brighter: hot ones of the sensor, which became white.')
  return 0, white, notes


def _reach(pixels: UInt16[np.ndarray, 'H W *C']) -> tuple[int, int, int, int]:
  """Of a frame: the greatest value of the fewest bits above which no two by two pixels lie, and hardly any at all; the
  greatest pixel up to there; the least one; and how many there are above.
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
  """Black and white of frames whose values may be of any range.

  Single hot pixels and the overshoot of a filter do not count, so both are quantiles. Black is 0, unless values lie
  below it; white is what programs take for it where they write floating-point values, 1 or the greatest of some bits,
  if the frames come near it.

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
  if white <= black:  # of negative values, or of one value alone
    white = high if high > black else black + 1.0
  notes = []
  least, greatest = min(end[0] for end in ends), max(end[1] for end in ends)
  if (black, white) != (0.0, 1.0) or greatest > 1 or least < 0:
    notes.append(f'Pixels range from {least:g} to {greatest:g}: {black:g} was taken as black and {white:g} as white.')
  if odd:
    notes.append(f'{counts} values of {listed(odd)} are NaN or infinite: NaN was taken as black.')
  return (float(black), float(white)), notes


def _limit_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
  """Width and height with the longer one at most `max_side`, in the same ratio up to rounding."""
  if max_side is None or max(width, height) <= max_side:
    return width, height
  scale = max_side / max(width, height)
  return max(1, round(width * scale)), max(1, round(height * scale))


def _dark(images: UInt8[np.ndarray, 'N H W 3'], names: list[str]) -> list[str]:
  brightest = images.max(axis=(1, 2, 3))
  if brightest.max() < _DARK:
    return [f'The frames are dark: their brightest value is {brightest.max()} of 255.']
  dark = [name for name, value in zip(names, brightest, strict=True) if value < _BLACK]
  return [f'All but black: {listed(dark)}.'] if dark else []


def _duplicates(images: UInt8[np.ndarray, 'N H W 3'], names: list[str]) -> list[str]:
  """A remark for every frame whose pixels are those of an earlier one; of many, one for all."""
  notes, seen = [], {}
  for name, image in zip(names, images, strict=True):
    digest = hashlib.blake2b(image).digest()
    if digest in seen:
      notes.append(f'{seen[digest]} and {name} have the same pixels.')
    seen.setdefault(digest, name)
  if len(seen) == 1:
    return ['All frames have the same pixels: they tell no depth.']
  if len(notes) > _MOST_DUPLICATES:
    return [f'{len(notes)} frames have the pixels of earlier ones: {notes[0].removesuffix(".")}, for one.']
  return notes
