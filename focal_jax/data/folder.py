"""Reads a user's focal stack: images, and what is known about them (`data.metadata`). Nothing is written."""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from focal_jax.data.frames import Region, read_frames
from focal_jax.data.metadata import FRAME_INDEX_UNIT, Sweep, read_metadata
from focal_jax.errors import InputError

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp')


@dataclasses.dataclass(frozen=True, eq=False)
class FolderStack:
  """A focal stack as read from files, frames ordered far to near.

  Attributes:
    images: RGB, 0 .. 255.
    focus: focus coordinate of each frame: 1 / focus distance, so 0 at infinity; or, without distances, the place of its
      file (0 .. N-1, and N-1 .. 0 where the stack was reversed).
    fov: relative field of view of each frame, 1 for the narrowest (`optics.relative_field_of_view`); 1 where unknown.
    focus_unit: `DIOPTRE_UNIT`, `INVERSE_DISTANCE_UNIT` or `FRAME_INDEX_UNIT` (`data.metadata`).
    names: file name of each frame.
    notes: remarks for the user, one sentence each: what was used, assumed, reordered or ignored.
    focal_length_px: of the lens, in pixels of `images` across. None: unknown.
    focal_length: of the lens, in the unit of focus distances: m where `focus_unit` is 1/m. None: unknown.
    f_number: of the lens. None: unknown.
    principal_point_px: x and y in `images`, pixel centres at integers. Unless a sidecar tells, that is the centre of
      the whole frames, which a region need not hold.
  """

  images: UInt8[np.ndarray, 'N H W 3']
  focus: Float64[np.ndarray, 'N']
  fov: Float64[np.ndarray, 'N']
  focus_unit: str
  names: list[str]
  notes: list[str]
  focal_length_px: float | None
  f_number: float | None
  principal_point_px: tuple[float, float]
  focal_length: float | None = None


def read_stack_folder(
  source: str | Path | Sequence[str | Path],
  *,
  max_side: int | None = None,
  reverse: bool = False,
  region: Region | None = None,
  exif_dioptres: bool = False,
) -> FolderStack:
  """Reads images and their metadata.

  Frames are put in order far to near by their focus distances; without any, their order is taken for it.

  Args:
    source: a folder, of which the images directly in it are read in natural name order (2 before 10; no hidden files),
      or image files, in their order; if they are not all in one folder, their EXIF is all the metadata. At least two
      images of one size (`IMAGE_SUFFIXES`, any case).
    max_side: limit of the longer side in pixels; larger images are shrunk, smaller ones left alone. None: no limit.
    reverse: the order is near to far. Only for stacks without distances, which tell by themselves.
    region: left, top, width and height of the part to read, in pixels of the upright images. None: all.
    exif_dioptres: SubjectDistance in EXIF is in dioptres, 0 at infinity, not in metres as its standard says.

  Raises:
    InputError: naming the file or folder, what was found and what was expected.
  """
  if max_side is not None and max_side < 1:
    raise InputError(f'max_side is {max_side}, expected at least 1 pixel')
  in_name_order = isinstance(source, str | Path)
  paths = _list_images(Path(source)) if in_name_order else _check_images([Path(path) for path in source])
  names = [path.name for path in paths]
  frames = read_frames(paths, region, max_side)
  folders = {path.parent for path in paths}
  folder = folders.pop() if len(folders) == 1 else None
  all_names = [path.name for path in _list_images(folder)] if folder else []
  metadata = read_metadata(names, folder, all_names, frames.exif, frames.full_size, exif_dioptres)

  notes = list(metadata.notes)
  if metadata.sweep:
    focus, unit = metadata.sweep.focus, metadata.sweep.unit
    order = _far_to_near(metadata.sweep, names, notes)
    if reverse:
      notes.append(f'reverse was ignored: {metadata.sweep.source} gives the order.')
  else:
    focus, unit = np.arange(len(paths), dtype=np.float64), FRAME_INDEX_UNIT
    order = np.arange(len(paths))[::-1] if reverse else np.arange(len(paths))
    given = 'name order' if in_name_order else 'the order given'
    direction = 'near to far (reversed here)' if reverse else 'far to near (reverse it if it is not)'
    notes.append(f'No focus distances: {given} was taken as {direction}, and depth is in frames.')
    if paths != sorted(paths, key=_natural_order):
      notes.append('The order given is not that of the names.')
  _reorder(frames.images, order)

  height, width = frames.images.shape[1:3]
  left, top, region_width, region_height = frames.region
  scale = np.array([width / region_width, height / region_height])
  principal_point = (np.subtract(metadata.principal_point_px, (left, top)) + 0.5) * scale - 0.5
  return FolderStack(
    images=frames.images,
    focus=focus[order],
    fov=metadata.fov[order],
    focus_unit=unit,
    names=[names[n] for n in order],
    notes=notes + frames.notes,
    focal_length_px=metadata.focal_length_px and float(metadata.focal_length_px * scale[0]),
    f_number=metadata.f_number,
    principal_point_px=tuple(principal_point.tolist()),
    focal_length=metadata.sweep and metadata.sweep.focal_length,
  )


def _list_images(folder: Path) -> list[Path]:
  """Two or more image files, in natural name order."""
  try:
    entries = list(folder.iterdir())
  except OSError as error:
    raise InputError(f'{folder}: {error.strerror}, expected a folder of images') from error
  paths = [path for path in entries if _is_image(path) and not path.is_dir()]
  if len(paths) < 2:
    found = f'one image ({paths[0].name})' if paths else 'no images'
    raise InputError(f'{folder}: {found}, expected at least two ({", ".join(IMAGE_SUFFIXES)})')
  return sorted(paths, key=_natural_order)


def _check_images(paths: list[Path]) -> list[Path]:
  """The same paths, if they may be a stack."""
  if len(paths) < 2:
    found = f'one image ({paths[0]})' if paths else 'no images'
    raise InputError(f'{found} given, expected at least two ({", ".join(IMAGE_SUFFIXES)})')
  seen = {}
  for path in paths:
    if not _is_image(path):
      raise InputError(f'{path}: is no image by its name, expected one of {", ".join(IMAGE_SUFFIXES)}')
    if path.name in seen:
      raise InputError(f'{path}: has the name of {seen[path.name]}, expected every image once and different names')
    seen[path.name] = path
  return paths


def _is_image(path: Path) -> bool:
  return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')


def _natural_order(path: Path) -> tuple[list[str | int], str]:
  # The split puts text at even places and digits at odd ones, so that text is never compared with a number.
  parts = re.split(r'(\d+)', path.stem.lower())
  return [int(part) if n % 2 else part for n, part in enumerate(parts)], path.name


def _far_to_near(sweep: Sweep, names: list[str], notes: list[str]) -> Int64[np.ndarray, 'N']:
  """The order of the frames; adds to the notes what is odd about the sweep."""
  focus = sweep.focus
  order = np.argsort(focus, kind='stable')  # Of equal distances the first in name order stays first.
  farther = focus[1:] < focus[:-1]
  nearer = focus[1:] > focus[:-1]
  if farther.any() and not nearer.any():
    order = np.arange(len(names))[::-1]
    notes.append(f'{sweep.source} goes near to far: the frames were reversed.')
  elif farther.any():
    notes.append(f'{sweep.source} is in no order: the frames were sorted far to near.')
  with np.errstate(divide='ignore'):
    notes += [
      f'{names[a]} and {names[b]} have the same focus distance, {1 / focus[a]:g}.'
      for a, b in itertools.pairwise(order)
      if focus[a] == focus[b]
    ]
  return order


def _reorder(images: UInt8[np.ndarray, 'N H W 3'], order: Int64[np.ndarray, 'N']) -> None:
  """images[order] in place, by exchanges, for full-size photographs should not be in memory twice."""
  for place, source in enumerate(order):
    while source < place:  # What was there was exchanged before.
      source = order[source]
    if source != place:
      images[[place, source]] = images[[source, place]]
