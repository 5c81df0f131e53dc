"""Reads the frames of a stack: upright, 8-bit sRGB, all of one size.

16-bit pixels are scaled by the number of bits that the brightest frame uses, because cameras store 12 bits in 16;
single hot pixels are ignored. Floating-point and other wide pixels are scaled by their range.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8, UInt16
from PIL import Image, ImageStat

from focal_jax.data.colour import ColourReader
from focal_jax.data.decode import Decoded, Levels, decode, to_rgb
from focal_jax.data.exif import FrameExif
from focal_jax.data.header import FrameHeader, errors_naming_file
from focal_jax.data.names import format_list, printable
from focal_jax.data.scales import Scale, scales_of
from focal_jax.data.unreadable import Unreadable, UnreadableError
from focal_jax.errors import InputError

Region = tuple[int, int, int, int]

# Maximum values below which a stack is noted as dark, and a frame of a brighter stack as nearly black.
_DARK, _BLACK = 32, 16
_WHITE = 240  # minimum value above which a stack is noted as overexposed
_WHITES = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # common white levels of values of any range
_DEEP_WHITES = _WHITES[1:]  # white levels of 8 to 16 bits
_MIN_CONTRAST = 4  # an offset is removed if 16-bit values range over less than 1 / this of the largest one
_HOT = 3e-4  # maximum share of hot pixels in a 16-bit frame
_MAX_DUPLICATES = 3  # duplicates that are listed one by one
_BELOW_BLACK = -0.02  # lowest value, relative to white, up to which black is 0
_OUTSIDE, _MAX_SAMPLES = 0.001, 1_000_000  # share of pixels below black and above white; number of pixels sampled
_HIGHLIGHTS = 0.01  # maximum share of pixels above 1 of floating-point photographs, for example reflections


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
  levels: tuple[Levels, ...]
  colours: ColourReader

  def size(self, max_side: int | None = None) -> tuple[int, int]:
    """Height and width of the frames if the longer side is at most `max_side` px; None: no limit."""
    return _limit_size(*self.region[2:], max_side)[::-1]

  def read(self, index: int, max_side: int | None = None) -> UInt8[np.ndarray, 'H W 3']:
    """One frame, sRGB 0 .. 255, at that size.

    Raises:
      InputError: its file cannot be decoded.
    """
    return self.read_with_diagnostics(index, max_side)[0]

  def read_with_diagnostics(
    self, index: int, max_side: int | None = None
  ) -> tuple[UInt8[np.ndarray, 'H W 3'], Decoded]:
    """Same as `read`, and the frame as decoded, whose other attributes may be worth a note."""
    header, size = self.headers[index], self.size(max_side)[::-1]
    decoded = decode(header, self.orientations[index])
    with errors_naming_file(header.file.path):
      image = _crop(to_rgb(decoded, self.levels[index], header, self.colours), self.region)
    if image.size != size:
      # With `reducing_gap` Pillow averages whole blocks first: several times faster, with no visible difference.
      image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(image), decoded

  def ordered(self, order: Sequence[int]) -> 'FrameReader':
    """The reader of the frames at these indices, in this order."""
    taken = {name: tuple(getattr(self, name)[n] for n in order) for name in ('headers', 'orientations', 'levels')}
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
    f'EXIF orientation of {format_list(different)} differs from that of {first.file.name}, '
    'which was used for all frames.'
  ]


def read_frames(
  headers: Sequence[FrameHeader], region: Region | None, max_side: int | None, unreadable: Unreadable
) -> Frames:
  """Decodes two or more frames.

  Args:
    headers: of the frames.
    region: left, top, width and height of the part to read, in pixels of the upright frames. None: all.
    max_side: maximum of the longer side of that part in pixels; larger ones are reduced. None: no limit.
    unreadable: collects frames that cannot be decoded, which are left out.

  Raises:
    InputError: too few frames can be decoded, sizes differ, or the region is not within the frames.
  """
  turns, notes = orientations(headers)
  full_size = headers[0].size(turns[0])
  for header, turn in zip(headers, turns, strict=True):
    if (size := header.size(turn)) != full_size:
      raise InputError(
        f'{printable(header.file.path)}: {size[0]} x {size[1]} pixels, '
        f'expected {full_size[0]} x {full_size[1]} as {headers[0].file.name}'
      )
  region = (0, 0, *full_size) if region is None else region
  _check_region(region, full_size)
  levels, level_notes = _levels(headers, unreadable)
  readable = [header for header in headers if header.file.name not in unreadable.errors]
  if len(readable) < len(headers):  # levels without those
    unreadable.check(len(readable))
    return read_frames(readable, region, max_side, unreadable)

  reader = FrameReader(tuple(headers), tuple(turns), region, levels, ColourReader())
  # Filled in place, so that a stack of full-size photographs is not in memory twice.
  images, read = np.empty((len(headers), *reader.size(max_side), 3), np.uint8), []
  transparent, damage, unended = False, [], []
  for n, header in enumerate(headers):
    with unreadable.noting(header.file.name):
      images[len(read)], decoded = reader.read_with_diagnostics(n, max_side)
      read.append(n)
      transparent |= decoded.transparent
      if decoded.damage:
        damage.append(f'{header.file.name} is damaged ({printable(decoded.damage)}): parts of the frame may be wrong.')
      if decoded.unended:
        unended.append(header.file.name)
  if len(read) < len(headers):
    unreadable.check(len(read))
    headers = [headers[n] for n in read]
    own_turns, notes = orientations(headers)
    if own_turns != list(reader.ordered(read).orientations):  # they followed a frame that cannot be read
      return read_frames(headers, region, max_side, unreadable)
    images, reader = images[: len(read)], reader.ordered(read)

  notes += level_notes
  if unended:
    lacks = 'lacks the end of its file' if len(unended) == 1 else 'lack the ends of their files'
    notes.append(f'{format_list(unended)} {lacks}, but no part of the image.')
  notes += damage + reader.colours.notes
  names = [header.file.name for header in headers]
  if transparent:
    notes.append('Transparency was ignored.')
  if paged := [header.file.name for header in headers if header.file.alone and header.pages > 1]:
    notes.append(f'Only the first image in {", ".join(paged)} was read.')
  notes += _exposed(images, names) + _duplicates(images, names)
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


class _Reach(NamedTuple):
  """Value range of a frame.

  Attributes:
    black: black level, from this frame alone.
    white: white level, from this frame alone.
    least: smallest value.
    greatest: largest value, without hot pixels.
    mean: mean value.
    odd: number of hot, NaN or infinite pixels.
  """

  black: float
  white: float
  least: float
  greatest: float
  mean: float
  odd: int


def _levels(headers: Sequence[FrameHeader], unreadable: Unreadable) -> tuple[tuple[Levels, ...], list[str]]:
  """Black and white levels of each frame, and notes."""
  reaches: dict[bool, dict[int, _Reach]] = {False: {}, True: {}}  # by whether they may be of any range
  for n, header in enumerate(headers):
    if header.deep or header.measured:
      with unreadable.noting(header.file.name):
        values = np.asarray(decode(header, 1).pixels)
        reaches[header.measured][n] = _range_of(values, header) if header.measured else _reach(values)
  usual = None
  if any(reaches.values()):
    usual = _brightness([header for header in headers if not (header.deep or header.measured)], unreadable)
  levels, notes = [Levels()] * len(headers), []
  for is_measured, found in reaches.items():
    several, told = [], []
    for scale in _scales(list(found.values()), _WHITES if is_measured else _DEEP_WHITES, usual):
      places = [list(found)[n] for n in scale.frames]
      make = _value_range if is_measured else _deep_levels
      one, remarks = make({headers[n].file.name: found[n] for n in places}, scale.white)
      told.append(remarks)
      for n in places:
        levels[n] = one
      white = one.range[1] if is_measured else one.white
      several.append(f'{white:g} in {format_list([headers[n].file.name for n in places])}')
    # With one scale, the notes say how it was found; with several, which frames are on which.
    notes += told[0] if len(told) == 1 else [remark for remarks in told for remark in remarks[1:]]
    if len(several) > 1:
      notes.append(f'The frames are on different scales: white is {" and ".join(several)}.')
  return tuple(levels), notes


def _scales(reaches: list[_Reach], possible: Sequence[float], usual: float | None) -> list[Scale]:
  if not reaches:
    return []
  if any(reach.black < _BELOW_BLACK * abs(reach.white) for reach in reaches):  # means of signed values say nothing
    return [Scale(list(range(len(reaches))), None)]
  return scales_of([reach.mean for reach in reaches], [reach.white for reach in reaches], possible, usual)


def _brightness(headers: list[FrameHeader], unreadable: Unreadable) -> float | None:
  """Median over 8-bit frames of their mean brightness, 0 .. 1; None: there are none."""
  found = []
  for header in headers:
    with unreadable.noting(header.file.name):
      found.append(ImageStat.Stat(decode(header, 1).pixels.convert('L')).mean[0] / 255)
  return float(np.median(found)) if found else None


def _deep_levels(reaches: dict[str, _Reach], white: float | None) -> tuple[Levels, list[str]]:
  """Black and white levels of 16-bit frames, and notes. 0 and the largest value of as many bits as the brightest frame
  uses, ignoring single hot pixels; or the range of the values if an offset would leave them only a few of 255 levels.
  """
  _, whites, darkest, brightest, _, hot = zip(*reaches.values(), strict=True)
  known, highest, least = white is not None, int(max(brightest)), int(min(darkest))
  white = int(max(whites) if white is None else white)
  if not known and 0 < highest - least < highest / _MIN_CONTRAST:
    return Levels(highest, least), [f'16-bit pixels range from {least} to {highest}, which became black and white.']
  if white == 65535:
    return Levels(white), []
  notes = [f'16-bit pixels reach {highest} only: white was taken as {white}.']
  if any(hot):
    notes.append(f'Up to {max(hot)} pixels of a frame are brighter (hot pixels) and became white.')
  return Levels(white), notes


def _reach(pixels: UInt16[np.ndarray, 'H W *C']) -> _Reach:
  """Value range of a 16-bit frame. White is the largest value of the fewest bits that is exceeded only by isolated
  pixels, and by hardly any of those.
  """
  highest, least, mean = float(pixels.max()), float(pixels.min()), float(pixels.mean())
  for white in _DEEP_WHITES[:-1]:
    above = pixels > white
    count = int(np.count_nonzero(above))
    together = above[:-1, :-1] & above[1:, :-1] & above[:-1, 1:] & above[1:, 1:]
    if count <= _HOT * above.size and not together.any():
      return _Reach(0.0, white, least, highest if not count else float(pixels[~above].max()), mean, count)
  return _Reach(0.0, _DEEP_WHITES[-1], least, highest, mean, 0)


def _value_range(reaches: dict[str, _Reach], white: float | None) -> tuple[Levels, list[str]]:
  """Black and white levels of frames whose values may have any range, and notes.

  Both are quantiles, so that single hot pixels and the overshoot of filters do not count. Black is 0 unless values are
  below it. White is a common white level (1, or the maximum of some number of bits) if the frames come close to it,
  otherwise their maximum.

  Args:
    reaches: value range of each frame, by name.
    white: white level, if it is known.
  """
  low, high = min(reach.black for reach in reaches.values()), max(reach.white for reach in reaches.values())
  if white is None:
    white = high
  black = low if low < _BELOW_BLACK * abs(white) else 0.0
  if white <= black:  # all values are equal
    white = black + 1.0
  notes = []
  least, greatest = min(reach.least for reach in reaches.values()), max(reach.greatest for reach in reaches.values())
  if (black, white) != (0.0, 1.0) or greatest > 1 or least < 0:
    notes.append(f'Pixels range from {least:g} to {greatest:g}: {black:g} was taken as black and {white:g} as white.')
  if odd := {name: reach.odd for name, reach in reaches.items() if reach.odd}:
    notes.append(f'{sum(odd.values())} values of {format_list(list(odd))} are NaN or infinite: NaN was taken as black.')
  return Levels(range=(float(black), float(white))), notes


def _range_of(values: Shaped[np.ndarray, '...'], header: FrameHeader) -> _Reach:
  """Value range of a frame whose values may have any range; see `_value_range`.

  Raises:
    UnreadableError: no value is finite.
  """
  finite = values[np.isfinite(values)] if values.dtype.kind == 'f' else values.ravel()
  if not len(finite):
    reason = 'all its pixels are NaN or infinite, expected numbers'
    raise UnreadableError(f'{printable(header.file.path)}: {reason}', reason)
  sample = finite[:: max(1, len(finite) // _MAX_SAMPLES)].astype(np.float64)
  low, usual, high = np.quantile(sample, (_OUTSIDE, 1 - _HIGHLIGHTS, 1 - _OUTSIDE))
  if values.dtype.kind == 'f' and _WHITES[0] / 8 < usual <= _WHITES[0] < high:
    high = _WHITES[0]
  white = next((one for one in _WHITES if one / 8 < high <= one), high)
  ends = float(finite.min()), float(finite.max())
  return _Reach(float(low), float(white), *ends, float(np.minimum(sample, white).mean()), values.size - len(finite))


def _limit_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
  """Width and height with the longer one at most `max_side`, keeping the ratio up to rounding."""
  if max_side is None or max(width, height) <= max_side:
    return width, height
  scale = max_side / max(width, height)
  return max(1, round(width * scale)), max(1, round(height * scale))


def _exposed(images: UInt8[np.ndarray, 'N H W 3'], names: list[str]) -> list[str]:
  if (darkest := images.min()) > _WHITE:
    return [f'The frames are overexposed: their darkest value is {darkest} of 255.']
  brightest = images.max(axis=(1, 2, 3))
  if brightest.max() < _DARK:
    return [f'The frames are dark: their brightest value is {brightest.max()} of 255.']
  dark = [name for name, value in zip(names, brightest, strict=True) if value < _BLACK]
  return [f'Nearly black: {format_list(dark)}.'] if dark else []


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
  if len(notes) > _MAX_DUPLICATES:
    return [f'{len(notes)} frames are duplicates, for example: {notes[0]}']
  return notes
