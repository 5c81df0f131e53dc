"""Decodes the frames of a stack: upright, RGB of 8 bits, all of one size.

16-bit grey is scaled by what its brightest frame needs, as cameras put 12 bits into 16. Of 16-bit colour Pillow gives
the upper 8 bits, at most one grey level below rounding.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from focal_jax.data.exif import FrameExif, read_exif
from focal_jax.errors import InputError, one_line

Region = tuple[int, int, int, int]

_DARK = 32  # a stack whose brightest value is below it is worth a remark
# TIFF's tags, of which 1 is the default, and values of the latter two.
_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PLANES = 258, 259, 284
_UNCOMPRESSED, _SEPARATE = 1, 2


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
  """Frames in the order of their files.

  Attributes:
    images: RGB, 0 .. 255, of the region, reduced.
    full_size: width and height of the upright frames in the files, px.
    region: left, top, width and height of what was read of them, px.
    exif: of each frame.
    notes: remarks for the user, one sentence each.
  """

  images: UInt8[np.ndarray, 'N H W 3']
  full_size: tuple[int, int]
  region: Region
  exif: list[FrameExif]
  notes: list[str]


@dataclasses.dataclass(frozen=True, eq=False)
class _Decoded:
  image: Image.Image  # upright, in the mode of its file
  exif: FrameExif
  transparent: bool
  pages: int


def read_frames(paths: list[Path], region: Region | None, max_side: int | None) -> Frames:
  """Reads two or more images.

  Args:
    paths: of the images.
    region: left, top, width and height of the part to read, in pixels of the upright frames. None: all.
    max_side: limit of the longer side of that part in pixels; larger ones are shrunk. None: no limit.

  Raises:
    InputError: a file cannot be decoded, sizes differ, or the region does not lie within the frames.
  """
  first = _decode(paths[0])
  full_size = first.image.size
  region = (0, 0, *full_size) if region is None else region
  _check_region(region, full_size)
  width, height = _limit_size(*region[2:], max_side)
  white, notes = _white_level(paths) if first.image.mode.startswith('I') else (65535, [])

  # Filled in place, for a stack of full-size photographs should not be in memory twice.
  images = np.empty((len(paths), height, width, 3), np.uint8)
  exif, transparent, paged = [], False, []
  rest = (_decode(path) for path in paths[1:])
  for place, (path, decoded) in enumerate(zip(paths, itertools.chain([first], rest), strict=True)):
    if decoded.image.size != full_size:
      raise InputError(
        f'{path}: {decoded.image.width} x {decoded.image.height} pixels, '
        f'expected {full_size[0]} x {full_size[1]} as {paths[0].name}'
      )
    with _naming(path):
      image = _to_rgb(_crop(decoded.image, region), white)
    if image.size != (width, height):
      # With `reducing_gap` Pillow averages whole blocks first: several times faster, and no difference to see.
      image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    images[place] = np.asarray(image)
    exif.append(decoded.exif)
    transparent |= decoded.transparent
    if decoded.pages > 1:
      paged.append(path.name)

  if transparent:
    notes.append('Transparency was ignored.')
  if paged:
    notes.append(f'Of the images in {", ".join(paged)} only the first was read.')
  if (brightest := images.max()) < _DARK:
    notes.append(f'The frames are dark: their brightest value is {brightest} of 255.')
  notes += _duplicates(images, [path.name for path in paths])
  return Frames(images, full_size, region, exif, notes)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
  """Turns what goes wrong with an image into one line that names its file."""
  try:
    # Pillow warns of large images, odd EXIF entries and the like; what it can decode is good enough.
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      yield
  except Exception as error:  # Decoders raise nearly anything on damaged files.
    raise InputError(f'{path}: cannot be read as an image ({type(error).__name__}: {one_line(error)})') from error


def _decode(path: Path) -> _Decoded:
  with _naming(path):
    if path.stat().st_size == 0:
      raise ValueError('the file is empty')
    # Given a name, Pillow maps some TIFFs into memory, and mixes up height and width of those that lie on their side.
    with path.open('rb') as file, Image.open(file) as image:
      _check_planes(image)
      exif = read_exif(image)
      # A second JPEG picture in a file is a preview, or made for 3-D displays.
      pages = 1 if image.format == 'MPO' else getattr(image, 'n_frames', 1)
      return _Decoded(ImageOps.exif_transpose(image), exif, image.has_transparency_data, pages)


def _check_planes(image: Image.Image) -> None:
  """Raises for the one layout of TIFF that Pillow takes for another and gives as noise."""
  if image.format != 'TIFF':
    return
  bits, compression, planes = (image.tag_v2.get(tag, 1) for tag in (_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_PLANES))
  if planes == _SEPARATE and compression == _UNCOMPRESSED and np.max(bits) > 8:
    raise ValueError('uncompressed 16-bit colours in separate planes, expected interleaved or compressed ones')


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


def _white_level(paths: list[Path]) -> tuple[int, list[str]]:
  """The value that becomes white in 16-bit grey: the greatest of as many bits as the brightest frame needs."""
  highest = 0
  for path in paths:
    image = _decode(path).image
    with _naming(path):
      highest = max(highest, int(np.asarray(image).max()))
  white = next((2**bits - 1 for bits in (8, 10, 12, 14) if highest < 2**bits), 65535)
  notes = [] if white == 65535 else [f'16-bit pixels reach {highest} only: white was taken as {white}.']
  return white, notes


def _to_rgb(image: Image.Image, white: int) -> Image.Image:
  """8-bit RGB; 16-bit grey is scaled, where Pillow's own conversion clips it at 255. Alpha is dropped."""
  if image.mode == 'F':
    raise ValueError('floating-point pixels, expected 8 or 16 bits')
  if image.mode.startswith('I'):
    values = np.asarray(image)
    if values.min() < 0 or values.max() > white:
      raise ValueError(f'pixels range from {values.min()} to {values.max()}, expected 0 to {white}')
    image = Image.fromarray(((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))
  return image.convert('RGB')


def _limit_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
  """Width and height with the longer one at most `max_side`, in the same ratio up to rounding."""
  if max_side is None or max(width, height) <= max_side:
    return width, height
  scale = max_side / max(width, height)
  return max(1, round(width * scale)), max(1, round(height * scale))


def _duplicates(images: UInt8[np.ndarray, 'N H W 3'], names: list[str]) -> list[str]:
  """A remark for every frame whose pixels are those of an earlier one."""
  notes, seen = [], {}
  for name, image in zip(names, images, strict=True):
    digest = hashlib.blake2b(image).digest()
    if digest in seen:
      notes.append(f'{seen[digest]} and {name} have the same pixels.')
    seen.setdefault(digest, name)
  return notes
