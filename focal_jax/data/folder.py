"""Reads a user's focal stack: a folder of images and, if known, what the camera said about them.

Metadata, in the layout of the published code, is two text files beside the images: `focus_distance.txt`, one distance
per frame in name order, and `focal_length.txt`, one number in the same unit, whichever that is. Nothing is written.
"""

import dataclasses
import itertools
import re
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageOps

from focal_jax import optics
from focal_jax.errors import InputError, one_line

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp')
FOCUS_DISTANCE_FILE = 'focus_distance.txt'
FOCAL_LENGTH_FILE = 'focal_length.txt'

# Values of `FolderStack.focus_unit`. The first is dioptres if the file is in metres.
INVERSE_DISTANCE_UNIT = f'1 / unit of {FOCUS_DISTANCE_FILE}'
FRAME_INDEX_UNIT = 'frame index'


@dataclasses.dataclass(frozen=True, eq=False)
class FolderStack:
  """A focal stack as read from a folder, frames ordered far to near.

  Attributes:
    images: RGB, 0 .. 255.
    focus: focus coordinate of each frame: 1 / focus distance, so 0 at infinity; or, without distances, the place of its
      file in name order (0 .. N-1, and N-1 .. 0 where the stack was reversed).
    fov: relative field of view of each frame, 1 for the narrowest (`optics.relative_field_of_view`); 1 where unknown.
    focus_unit: `INVERSE_DISTANCE_UNIT` or `FRAME_INDEX_UNIT`.
    names: file name of each frame.
    notes: remarks for the user, one sentence each: what was assumed, reordered or ignored.
  """

  images: UInt8[np.ndarray, 'N H W 3']
  focus: Float64[np.ndarray, 'N']
  fov: Float64[np.ndarray, 'N']
  focus_unit: str
  names: list[str]
  notes: list[str]


def read_stack_folder(folder: str | Path, *, max_side: int | None = None, reverse: bool = False) -> FolderStack:
  """Reads the images directly in `folder`, in natural name order (2 before 10), and its metadata.

  Frames are put in order far to near: by their focus distances if there is a `focus_distance.txt`, else name order is
  taken for it. Hidden files and sub-folders are ignored.

  Args:
    folder: holds at least two images of one size (`IMAGE_SUFFIXES`, any case).
    max_side: limit of the longer side in pixels; larger images are shrunk, smaller ones left alone. None: no limit.
    reverse: name order is near to far. Only for stacks without distances, which tell by themselves.

  Raises:
    InputError: naming the file or folder, what was found and what was expected.
  """
  folder = Path(folder)
  if max_side is not None and max_side < 1:
    raise InputError(f'max_side is {max_side}, expected at least 1 pixel')
  paths = _list_images(folder)
  names = [path.name for path in paths]
  distance_file, length_file = folder / FOCUS_DISTANCE_FILE, folder / FOCAL_LENGTH_FILE
  if distance_file.exists():
    focus, fov, order, notes = _read_metadata(distance_file, length_file, names)
    unit = INVERSE_DISTANCE_UNIT
    if reverse:
      notes.append(f'reverse was ignored: {FOCUS_DISTANCE_FILE} gives the order.')
  else:
    focus, fov = np.arange(len(paths), dtype=np.float64), np.ones(len(paths))
    order = np.arange(len(paths))[::-1] if reverse else np.arange(len(paths))
    unit = FRAME_INDEX_UNIT
    direction = 'near to far (reversed here)' if reverse else 'far to near (reverse it if it is not)'
    notes = [f'No {FOCUS_DISTANCE_FILE}: name order was taken as {direction}, and depth is in frames.']
    if length_file.exists():
      notes.append(f'{FOCAL_LENGTH_FILE} was ignored: it says nothing without {FOCUS_DISTANCE_FILE}.')
  return FolderStack(
    images=_read_images(paths, order, max_side),
    focus=focus[order],
    fov=fov[order],
    focus_unit=unit,
    names=[names[n] for n in order],
    notes=notes,
  )


def _list_images(folder: Path) -> list[Path]:
  """Two or more image files, in natural name order."""
  try:
    entries = list(folder.iterdir())
  except OSError as error:
    raise InputError(f'{folder}: {error.strerror}, expected a folder of images') from error
  paths = [
    path
    for path in entries
    if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.') and not path.is_dir()
  ]
  if len(paths) < 2:
    found = f'one image ({paths[0].name})' if paths else 'no images'
    raise InputError(f'{folder}: {found}, expected at least two ({", ".join(IMAGE_SUFFIXES)})')
  return sorted(paths, key=_natural_order)


def _natural_order(path: Path) -> tuple[list[str | int], str]:
  # The split puts text at even places and digits at odd ones, so that text is never compared with a number.
  parts = re.split(r'(\d+)', path.stem.lower())
  return [int(part) if n % 2 else part for n, part in enumerate(parts)], path.name


def _read_metadata(
  distance_file: Path, length_file: Path, names: list[str]
) -> tuple[Float64[np.ndarray, 'N'], Float64[np.ndarray, 'N'], np.ndarray, list[str]]:
  """Focus (1 / distance) and relative field of view in name order, the order far to near, and notes."""
  distance = _read_numbers(distance_file)
  if len(distance) != len(names):
    raise InputError(f'{distance_file}: {len(distance)} numbers, expected {len(names)}, one for each image beside it')
  notes = []
  if length_file.exists():
    length = _read_numbers(length_file)
    if len(length) != 1:
      raise InputError(f'{length_file}: {len(length)} numbers, expected 1')
    fov = optics.field_of_view_of_sweep(length[0], distance, f'{distance_file} with {FOCAL_LENGTH_FILE}')
  else:
    # Any distance above 0 lies outside the shortest focal length there is.
    optics.check_focus_distances(distance, np.finfo(np.float64).tiny, source=str(distance_file))
    fov = np.ones(len(distance))
    notes.append(f'No {FOCAL_LENGTH_FILE}: the field of view was taken as equal in all frames.')

  order = np.argsort(-distance, kind='stable')  # Of equal distances the first in name order stays first.
  rises = distance[1:] > distance[:-1]
  falls = distance[1:] < distance[:-1]
  if rises.any() and not falls.any():
    order = np.arange(len(names))[::-1]
    notes.append(f'{FOCUS_DISTANCE_FILE} goes near to far: the frames were reversed.')
  elif rises.any():
    notes.append(f'{FOCUS_DISTANCE_FILE} is in no order: the frames were sorted far to near.')
  notes += [
    f'{names[a]} and {names[b]} have the same focus distance, {distance[a]}.'
    for a, b in itertools.pairwise(order)
    if distance[a] == distance[b]
  ]
  return 1.0 / distance, fov, order, notes


def _read_numbers(path: Path) -> Float64[np.ndarray, 'N']:
  """The numbers of a text file, separated by white space."""
  try:
    words = path.read_text(encoding='utf-8-sig').split()  # Windows editors begin a file with a byte order mark.
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f'{path}: cannot be read as text ({error})') from error
  numbers = np.empty(len(words))
  for n, word in enumerate(words):
    try:
      numbers[n] = float(word)
    except ValueError:
      raise InputError(f'{path}: number {n + 1} is {word[:40]!r}, expected a number such as 0.35') from None
  return numbers


def _read_images(paths: list[Path], order: np.ndarray, max_side: int | None) -> UInt8[np.ndarray, 'N H W 3']:
  """The frames in the given order, which must all have one size."""
  first = _read_image(paths[0])
  width, height = _limit_size(*first.size, max_side)
  # Filled in place, for a stack of full-size photographs should not be in memory twice.
  frames = np.empty((len(paths), height, width, 3), np.uint8)
  rest = (_read_image(path) for path in paths[1:])
  for place, path, image in zip(np.argsort(order), paths, itertools.chain([first], rest), strict=True):
    if image.size != first.size:
      raise InputError(
        f'{path}: {image.width} x {image.height} pixels, expected {first.width} x {first.height} as {paths[0].name}'
      )
    if image.size != (width, height):
      # With `reducing_gap` Pillow averages whole blocks first: several times faster, and no difference to see.
      image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    frames[place] = np.asarray(image)
  return frames


def _read_image(path: Path) -> Image.Image:
  """The whole image, decoded, upright, RGB of 8 bits."""
  try:
    if path.stat().st_size == 0:
      raise ValueError('the file is empty')
    # Pillow warns of large images, odd EXIF entries and the like; what it can decode is good enough.
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      with Image.open(path) as image:
        return _to_rgb(ImageOps.exif_transpose(image))
  except Exception as error:  # Decoders raise nearly anything on damaged files.
    raise InputError(f'{path}: cannot be read as an image ({type(error).__name__}: {one_line(error)})') from error


def _to_rgb(image: Image.Image) -> Image.Image:
  """8-bit RGB; 16-bit grey is scaled, where Pillow's own conversion clips it at 255. Alpha is dropped."""
  if image.mode == 'F':
    raise ValueError('floating-point pixels, expected 8 or 16 bits')
  if image.mode.startswith('I'):
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
      raise ValueError(f'pixels range from {values.min()} to {values.max()}, expected 0 to 65535')
    image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
  return image.convert('RGB')


def _limit_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
  """Width and height with the longer one at most `max_side`, in the same ratio up to rounding."""
  if max_side is None or max(width, height) <= max_side:
    return width, height
  scale = max_side / max(width, height)
  return max(1, round(width * scale)), max(1, round(height * scale))
