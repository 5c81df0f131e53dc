"""Reads a user's focal stack: images and their metadata (`data.metadata`). Nothing is written."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from focal_jax.data.choice import choose_frames
from focal_jax.data.frames import FrameReader, Region, read_frames
from focal_jax.data.fused import find_fused_frame
from focal_jax.data.metadata import FRAME_INDEX_UNIT, Sweep, read_metadata
from focal_jax.data.unreadable import Unreadable
from focal_jax.errors import InputError

_FEW = 3  # more remarks of a kind become one


@dataclasses.dataclass(frozen=True, eq=False)
class FolderStack:
  """A focal stack as read from files, frames ordered far to near.

  Attributes:
    images: sRGB, 0 .. 255.
    focus: focus coordinate of each frame: 1 / focus distance, so 0 at infinity; or its position along the axis; or,
      without either, the index of its file (0 .. N-1, or N-1 .. 0 if the stack was reversed).
    fov: relative field of view of each frame, 1 for the narrowest (`optics.relative_field_of_view`); 1 if unknown.
    focus_unit: `DIOPTRE_UNIT`, `INVERSE_DISTANCE_UNIT` or `FRAME_INDEX_UNIT` (`data.metadata`), or for positions any
      other unit given by their source.
    names: printable name of each frame: that of the file, with the page number for pages.
    notes: notes for the user, one sentence each: what was used, assumed, reordered, left out or ignored.
    focal_length_px: of the lens, in pixels of `images`. None: unknown.
    focal_length: of the lens, in the unit of focus distances: m if `focus_unit` is 1/m. None: unknown.
    f_number: of the lens. None: unknown.
    principal_point_px: x and y in `images`, pixel centres at integers. By default the centre of the whole frames, which
      may lie outside a region.
    order_known: whether focus distances determine which end is far. False: the order, or the direction of positions, is
      a guess.
    paths: file of each frame; the same for all pages of a file.
    reader: reads single frames again, at another size (`frame`). None: there are no files.
    all_listed: the user listed every file, one by one or in a sidecar, so none is left out because of its pixels.
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
  order_known: bool = True
  paths: tuple[Path, ...] = ()
  focal_length: float | None = None
  reader: FrameReader | None = None
  all_listed: bool = True

  def size(self, max_side: int | None = None) -> tuple[int, int]:
    """Height and width of the images that `frame` returns, px."""
    return self.images.shape[1:3] if self.reader is None else self.reader.size(max_side)

  def frame(self, index: int, max_side: int | None = None) -> UInt8[np.ndarray, 'H W 3']:
    """A single frame with its longer side at most `max_side` px; None: as in its file. It is read again if `images`
    have another size, so that only one frame of that size is in memory.

    Raises:
      InputError: its file can no longer be read.
    """
    if self.size(max_side) == self.images.shape[1:3]:
      return self.images[index]
    return self.reader.read(index, max_side)

  def reversed(self, note: str) -> 'FolderStack':
    """The frames in reverse order, each with its own focus; `note` gives the reason."""
    return self._taken(slice(None, None, -1), note)

  def sorted(self, order: Sequence[int], note: str) -> 'FolderStack':
    """The frames in another order; `note` gives the reason. Without focus distances, the focus of a frame is its new
    index.
    """
    stack = self._taken(list(order), note)
    return dataclasses.replace(stack, focus=self.focus) if self.focus_unit == FRAME_INDEX_UNIT else stack

  def without(self, places: Sequence[int], note: str) -> 'FolderStack':
    """Removes the frames at `places`; `note` gives the reason. Without focus distances, the remaining frames are
    renumbered.
    """
    stack = self._taken([n for n in range(len(self.names)) if n not in places], note)
    stack = dataclasses.replace(stack, fov=stack.fov / stack.fov.min())
    if self.focus_unit != FRAME_INDEX_UNIT:
      return stack
    gone = self.focus[list(places)]
    return dataclasses.replace(stack, focus=stack.focus - (stack.focus[:, None] > gone).sum(axis=1))

  def _taken(self, index: slice | list[int], note: str) -> 'FolderStack':
    places = np.arange(len(self.names))[index].tolist()
    fields = {name: getattr(self, name)[index] for name in ('images', 'focus', 'fov')}
    fields |= {'names': [self.names[n] for n in places], 'paths': tuple(self.paths[n] for n in places if self.paths)}
    reader = self.reader and self.reader.ordered(places)
    return dataclasses.replace(self, **fields, reader=reader, notes=[*self.notes, note])


def read_stack_folder(
  source: str | Path | Sequence[str | Path],
  *,
  max_side: int | None = None,
  reverse: bool = False,
  region: Region | None = None,
  exif_dioptres: bool = False,
  channel: int | None = None,
  leave_out_unreadable: bool = True,
) -> FolderStack:
  """Reads images and their metadata.

  Frames are sorted far to near by their focus distances. Without these, they keep the natural order of their names, or
  the order of capture by EXIF if a counter in the names wraps around.

  Args:
    source: one of

      * a folder: the images directly in it (`formats.readable_suffixes`, any case; no hidden files). Files whose names
        do not fit the series, or that differ from nearly all others in size or colour, are left out (`data.series`);
      * a pattern such as `frames/*.jpg`, treated as a folder with only these files;
      * a multi-page TIFF or an animation, or a folder that contains only such a file (`data.pages`);
      * image files, in their order, or by the numbers in their names if they are in alphabetical order, as a shell
        lists them: 10, 11, 9. If they are in several folders, EXIF is their only metadata.

      At least two images of one size.
    max_side: maximum of the longer side in pixels; larger images are reduced. None: no limit.
    reverse: the order is near to far. Only for stacks without focus distances.
    region: left, top, width and height of the part to read, in pixels of the upright images. None: all.
    exif_dioptres: SubjectDistance in EXIF is in dioptres, 0 at infinity, not in metres as in the standard.
    channel: channel of a multi-channel TIFF, from 0. None: the one with the highest signal-to-noise ratio.
    leave_out_unreadable: leave out frames that cannot be read, with a note, if at least three and half of the frames
      remain. They keep their lines in `focus_distance.txt` and in a sidecar. False: an unreadable file is an error.

  Raises:
    InputError: naming the file or folder, what was found and what was expected.
  """
  if max_side is not None and max_side < 1:
    raise InputError(f'max_side is {max_side}, expected at least 1 pixel')
  chosen = choose_frames(source, channel, Unreadable(allowed=leave_out_unreadable))
  frames = read_frames(chosen.headers, region, max_side, chosen.unreadable)
  headers = frames.reader.headers
  names = [header.file.name for header in headers]
  pages = chosen.pages
  if pages:  # of all pages, some of which may be unreadable
    place = {name: n for n, name in enumerate(chosen.all_names)}
    pages = dataclasses.replace(pages, focus=pages.focus[[place[name] for name in names]])
  metadata = read_metadata(names, chosen.folder, chosen.all_names, frames.exif, frames.full_size, exif_dioptres, pages)

  notes = list(metadata.notes)
  sweep = metadata.sweep
  if sweep and not sweep.is_position:
    focus, unit = sweep.focus, sweep.unit
    order = _far_to_near(sweep, names, notes)
    if reverse:
      notes.append(f'reverse was ignored: {sweep.source} gives the order.')
  elif sweep:
    focus, unit = sweep.focus, sweep.unit
    order = _along_axis(sweep, reverse, notes)
  else:
    focus, unit = np.arange(len(names), dtype=np.float64), FRAME_INDEX_UNIT
    order = np.arange(len(names))[::-1] if reverse else np.arange(len(names))
    direction = 'near to far (reversed here)' if reverse else 'far to near (--near_to_far if it is not)'
    notes.append(f'No focus distances: {chosen.order} was taken as {direction}, and depth is in frames.')
  images = frames.images
  fused = None if sweep or chosen.all_listed else find_fused_frame(images)
  _reorder(images, order)

  height, width = images.shape[1:3]
  left, top, region_width, region_height = frames.region
  scale = np.array([width / region_width, height / region_height])
  principal_point = (np.subtract(metadata.principal_point_px, (left, top)) + 0.5) * scale - 0.5
  stack = FolderStack(
    images=images,
    focus=focus[order],
    fov=metadata.fov[order],
    focus_unit=unit,
    names=[names[n] for n in order],
    notes=notes + chosen.notes + chosen.unreadable.notes() + frames.notes,
    focal_length_px=metadata.focal_length_px and float(metadata.focal_length_px * scale[0]),
    f_number=metadata.f_number,
    principal_point_px=tuple(principal_point.tolist()),
    order_known=bool(sweep and not sweep.is_position),
    paths=tuple(headers[n].file.path for n in order),
    focal_length=metadata.sweep and metadata.sweep.focal_length,
    reader=frames.reader.ordered(order.tolist()),
    all_listed=chosen.all_listed,
  )
  if fused is None:
    return stack
  note = f'Left out: {names[fused]}, which is sharp everywhere: it is probably an all-in-focus image, not a frame.'
  return stack.without([stack.names.index(names[fused])], note)


def _far_to_near(sweep: Sweep, names: list[str], notes: list[str]) -> Int64[np.ndarray, 'N']:
  """The order of the frames, far to near; adds notes about the sweep if they were not in it."""
  focus = sweep.focus
  source = sweep.source.replace('the series', 'The series')
  order = np.argsort(focus, kind='stable')  # Frames at equal distances keep the order of their names.
  farther = focus[1:] < focus[:-1]
  nearer = focus[1:] > focus[:-1]
  if farther.any() and not nearer.any():
    order = np.arange(len(names))[::-1]
    notes.append(f'{source} goes from near to far: the frames were reversed.')
  elif farther.any():
    notes.append(f'{source} is not in order: the frames were sorted far to near.')
  with np.errstate(divide='ignore'):
    same = [
      f'{names[a]} and {names[b]} have the same focus distance, {1 / focus[a]:g}.'
      for a, b in itertools.pairwise(order)
      if focus[a] == focus[b]
    ]
  notes += same if len(same) <= _FEW else [f'{len(same)} frames have the same focus distance as another: {same[0]}']
  return order


def _along_axis(sweep: Sweep, reverse: bool, notes: list[str]) -> Int64[np.ndarray, 'N']:
  """The order of frames whose positions along the axis are known: rising or falling, whichever fits the files."""
  order = np.argsort(sweep.focus, kind='stable')
  falls = np.corrcoef(sweep.focus, np.arange(len(order)))[0, 1] < 0
  if falls:
    order = order[::-1]
  first, last = sweep.focus[order[[0, -1]]]
  if reverse:
    order = order[::-1]
  notes.append(
    f'Which end is far is unknown: positions from {first:g} to {last:g} were taken as '
    + ('near to far (reversed here).' if reverse else 'far to near (--near_to_far if it is not).')
  )
  return order


def _reorder(images: UInt8[np.ndarray, 'N H W 3'], order: Int64[np.ndarray, 'N']) -> None:
  """images[order] in place, by swaps, so that a stack of full-size photographs is not in memory twice."""
  for place, source in enumerate(order):
    while source < place:  # already swapped
      source = order[source]
    if source != place:
      images[[place, source]] = images[[source, place]]
