"""Reads a user's focal stack: images and their metadata (`data.metadata`). Nothing is written."""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from focal_jax.data import paths as file_paths
from focal_jax.data import series
from focal_jax.data.decode import FrameFile, FrameHeader, read_header
from focal_jax.data.formats import TIFF_SUFFIXES, badly_named, expected_suffixes, is_image, other_types, unread
from focal_jax.data.frames import FrameReader, Region, read_frames
from focal_jax.data.fused import find_fused_frame
from focal_jax.data.metadata import FRAME_INDEX_UNIT, METADATA_FILES, Sweep, count_distances, read_metadata
from focal_jax.data.names import format_list, natural_order, order_notes, printable
from focal_jax.data.pages import (
  PageStack,
  choose_channel,
  highest_snr,
  is_truncated_stack,
  picture_file,
  read_page_stack,
  read_plane_files,
)
from focal_jax.data.sidecar import read_sidecar
from focal_jax.data.unreadable import Unreadable, UnreadableError
from focal_jax.errors import InputError

_FEW = 3  # a folder with more images is not the parent of the stacks; more remarks of a kind become one

# Images that prediction writes.
_RESULTS = ('all_in_focus.png', 'alignment.gif', 'confidence.png', 'contact_sheet.png', 'depth.png', 'depth_16bit.png')


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


@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
  """The frames of a stack before they are decoded.

  Attributes:
    headers: of the frames, in the order that is used as far to near unless metadata give another.
    folder: the folder that contains them all. None: they are in several.
    all_names: names of the images in that folder that `focus_distance.txt` lists distances for.
    order: description of the order.
    pages: focus of `all_names` from their file, if they are pages.
    notes: notes for the user.
    all_listed: the user listed every file, one by one or in a sidecar, so none is left out because of its pixels.
    unreadable: frames whose headers could not be read.
  """

  headers: list[FrameHeader]
  folder: Path | None
  all_names: list[str]
  order: str
  pages: Sweep | None
  notes: list[str]
  unreadable: Unreadable
  all_listed: bool = True


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
  chosen = _choose(source, channel, Unreadable(allowed=leave_out_unreadable))
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


def _choose(source: str | Path | Sequence[str | Path], channel: int | None, unreadable: Unreadable) -> _Chosen:
  """The frames that `source` refers to."""
  if not isinstance(source, str | Path):
    paths = [file_paths.existing(path) for path in source]
    paths = [path for path in paths if path.name.lower() not in METADATA_FILES]  # a shell's FOLDER/* lists them, too
    if len(paths) == 1 and paths[0].is_file() and (stack := read_page_stack(paths[0], channel)):
      return _choose_pages(stack, [], unreadable)
    return _choose_files(_check_images(paths), unreadable)
  if (matches := file_paths.expand_pattern(str(source))) is not None:
    paths = [path for path in matches if is_image(path)]
    if not paths or (len(paths) == 1 and not read_page_stack(paths[0], channel)):
      raise InputError(
        f'{printable(source)}: matches {len(paths)} images among {len(matches)} files, expected at least two'
      )
    if len({path.parent for path in paths}) > 1:
      return _choose_files(_check_images(paths), unreadable)
    return _choose_series(paths[0].parent, paths, unread(matches), channel, unreadable)
  path = file_paths.existing(source)
  if path.is_file() and (stack := read_page_stack(path, channel)):
    return _choose_pages(stack, [], unreadable)
  paths, notes = _list_images(path, channel)
  return _choose_series(path, paths, notes, channel, unreadable)


def _read_headers(files: Sequence[FrameFile], unreadable: Unreadable) -> list[FrameHeader]:
  headers = []
  for file in files:
    with unreadable.noting(file.name):
      headers.append(read_header(file))
  unreadable.check(len(headers))
  return headers


def _choose_pages(stack: PageStack, notes: list[str], unreadable: Unreadable) -> _Chosen:
  """Frames that are pages of one file."""
  headers = _read_headers(stack.files, unreadable)
  pages = Sweep(stack.positions, stack.unit, stack.source) if stack.positions is not None else None
  names = [file.name for file in stack.files]
  order = 'the order of the pages'
  return _Chosen(headers, stack.files[0].path.parent, names, order, pages, notes + stack.notes, unreadable)


def _choose_files(paths: list[Path], unreadable: Unreadable) -> _Chosen:
  """Frames given one by one: all of them, in their order."""
  for path in paths:
    if not path.exists():
      raise InputError(f'{printable(path)}: found no such file, expected an image')
  notes, order, by_number = [], 'the order given', natural_order(paths)
  alphabetical = paths in (sorted(paths), sorted(paths, key=lambda path: str(path).casefold()))
  if alphabetical and paths not in (by_number, by_number[::-1]):
    notes.append('The files were given in alphabetical order, as shells list them, and sorted by their numbers.')
    notes += order_notes([printable(path.name) for path in by_number])
    paths, order = by_number, 'name order'
  elif paths != by_number:
    notes.append('The order given is not that of the names.')
  files = [picture_file(path) for path in paths]
  if len({path.name for path in paths}) < len(paths):
    files = [dataclasses.replace(file, name=_with_folder(file.path)) for file in files]
  else:
    fitting = set(_frames_of(paths, set())[0])
    if odd := [path.name for path in paths if path not in fitting]:
      does = 'does' if len(odd) == 1 else 'do'
      notes.append(f'{format_list(odd)} {does} not fit the series by name, but every file given is used.')
  headers = _read_headers(files, unreadable)
  folders = {path.parent for path in paths}
  folder = folders.pop() if len(folders) == 1 else None
  all_names = []
  if folder:
    there = natural_order(path for path in file_paths.entries(folder) if is_image(path) and not path.is_dir())
    if count_distances(folder) not in (None, len(there)):
      there, _ = _frames_of(there, set())
    all_names = [printable(path.name) for path in there]
  return _Chosen(headers, folder, all_names, order, None, notes, unreadable)


def _choose_series(
  folder: Path, paths: list[Path], notes: list[str], channel: int | None, unreadable: Unreadable
) -> _Chosen:
  """The frames among the images of a folder, which are in natural order."""
  if (pages := _pages_of(paths, channel)) is not None:
    stack, remarks = pages
    return _choose_pages(stack, notes + remarks, unreadable)
  count = count_distances(folder)
  kept = {path.name for path in paths} if count == len(paths) else set(read_sidecar(folder, []).files)
  frames, remarks = _frames_of(paths, kept)
  frames = natural_order(frames)  # other files may have hidden how these count
  if not kept and (channels := series.by_channel(frames)):
    files = [[picture_file(path) for path in one] for one in channels]
    chosen, which = choose_channel(files, channel, folder)
    others = set(frames) - set(channels[chosen])
    frames, remarks = _frames_of([path for path in paths if path not in others], kept)
    remarks += which
  elif channel is not None:
    remarks.append('channel was ignored: the file names contain no channel numbers.')
  headers = _read_headers([picture_file(path) for path in frames], unreadable)
  headers, odd = series.without_outlier_frames(headers, {path for path in frames if path.name in kept})
  if len(headers) < 2:
    raise InputError(f'{printable(folder)}: {"; ".join([*remarks, *odd])} expected at least two frames')
  all_names = [header.file.name for header in headers]
  if count is not None and (count != len(headers) or unreadable.errors):  # unreadable frames have distances too
    all_names = [printable(path.name) for path in (frames if count == len(frames) else paths)]
  places, times = series.by_time([header.file.name for header in headers], [header.exif.taken_s for header in headers])
  if places:
    headers = [headers[n] for n in places]
  order = 'the order of capture' if places else 'name order'
  if not places and series.tell_no_order([header.file.path.stem for header in headers]):
    order = 'alphabetical order'
  if not places:
    times = times + order_notes([header.file.name for header in headers])
  notes = notes + remarks + odd + times
  return _Chosen(headers, folder, all_names, order, None, notes, unreadable, all_listed=bool(kept))


def _frames_of(paths: list[Path], kept: set[str]) -> tuple[list[Path], list[str]]:
  """Removes files that are not frames, judging by their names; returns the others, and notes."""
  paths, twins = series.without_duplicate_formats(paths, kept)
  paths, strangers = series.without_other_series(paths, kept)
  return paths, twins + strangers


def _pages_of(paths: list[Path], channel: int | None) -> tuple[PageStack, list[str]] | None:
  """The stack in one file, if it is alone or next to fewer images than it has pages; or, if every file is a stack (such
  as a channel), the one with the highest signal-to-noise ratio. Also notes. None: the files are frames.
  """
  if len(paths) == 1:
    stack = read_page_stack(paths[0], channel)
    return (stack, []) if stack else None
  if (stack := read_plane_files(paths, channel)) is not None:
    return stack, []
  # Next to other files, an animation is a preview of them, not the stack.
  found = []
  for path in paths:
    if path.suffix.lower() in TIFF_SUFFIXES:
      with contextlib.suppress(UnreadableError):  # reported when it is read as a frame
        found.append(read_page_stack(path))
  found = [stack for stack in found if stack]
  # Two pages may be an image and the infrared channel of a scanner.
  stacks = [stack for stack in found if len(stack.files) >= max(3, len(paths))]
  if not stacks or (len(stacks) > 1 and len(stacks) < len(paths)):
    return None
  if len(stacks) == 1:
    path = stacks[0].files[0].path
    stack, reason = read_page_stack(path, channel), f'{printable(path.name)} is a stack'
  elif channel is None:
    stack, reason = stacks[highest_snr([stack.files for stack in stacks])], 'Every file is a stack'
  elif 0 <= channel < len(stacks):
    stack, reason = stacks[channel], 'Every file is a stack'
  else:
    raise InputError(
      f'channel is {channel}, expected 0 .. {len(stacks) - 1}, the stacks in {printable(paths[0].parent)}'
    )
  chosen = stack.files[0].path
  others = format_list([path.name for path in paths if path != chosen])
  return stack, [f'{reason}: depth is from {printable(chosen.name)}; not read: {others}.']


def _list_images(folder: Path, channel: int | None) -> tuple[list[Path], list[str]]:
  """Two or more image files, or one that is a stack, in natural order; and notes about images that cannot be read."""
  try:
    there = list(folder.iterdir())
    # Not folders, and not pipes, which would block. Broken links are reported when they are read.
    files = [path for path in there if path.is_file() or not path.exists()]
  except OSError as error:
    raise InputError(
      f'{printable(folder)}: {error.strerror}, expected a folder of images, or a multi-page TIFF{_advice(folder)}'
    ) from error
  paths = natural_order(path for path in files if is_image(path))
  if {'summary.json', 'motion.json'} <= {path.name for path in files} and all(path.name in _RESULTS for path in paths):
    raise InputError(
      f'{printable(folder)}: contains results of a prediction, expected frames; aligned ones are in aligned/'
    )
  if len(paths) < 2 and not (paths and read_page_stack(paths[0], channel)):
    raise InputError(_no_stack(folder, files, paths))
  notes = unread(files)
  if no_files := natural_order(path for path in set(there).difference(files) if is_image(path)):
    is_no_file = 'is not a file' if len(no_files) == 1 else 'are not files'
    notes.append(f'Not read: {format_list([path.name for path in no_files])}, which {is_no_file}.')
  if len(paths) <= _FEW:
    folders = file_paths.stack_folders(folder)
    if len(paths) < max(folders.values(), default=0):
      listed = format_list([f'{name} ({count})' for name, count in folders.items()])
      notes.append(f'Not read: the folders with images in it, {listed}; choose one of them if it is the stack.')
  return paths, notes


def _advice(path: Path) -> str:
  """What to do about a path that is no folder and no stack, for the end of a message; '' if that is unknown."""
  if re.match('[a-z]+:/', str(path)):
    return '; web addresses are not opened: download the frames first'
  if re.search(r'%\d*d|\{\d+\.\.\d+\}', path.name):
    return '; in patterns, * stands for the numbers'
  if path.name[-1:] in ('"', "'"):
    return '; leave out the quotation marks'
  if is_truncated_stack(path):
    return '; it is truncated: pages are missing'
  return ''.join(f'; {note.removesuffix(".")}' for note in unread([path])) if path.is_file() else ''


def _no_stack(folder: Path, files: list[Path], paths: list[Path]) -> str:
  """Message about a folder with at most one image, `paths`, among its files: what is there instead."""
  found = f'one image ({printable(paths[0].name)})' if paths else 'no images'
  message = f'{printable(folder)}: {found}, expected at least two ({expected_suffixes()})'
  if paths and is_truncated_stack(paths[0]):
    message += '; it is truncated: pages are missing'
  folders = file_paths.stack_folders(folder)
  notes = unread(files) + badly_named(files)
  if not (paths or notes or folders):
    notes = [f'in its folders, {note}' for note in unread(file_paths.files_below(folder))]
  if notes := notes or ([] if paths else other_types(files)):
    message += f'; {" ".join(notes).removesuffix(".")}'
  if folders:
    listed = format_list([f'{name} ({count})' for name, count in folders.items()], 8)
    return f'{message}; choose one of the folders with images: {listed}'
  if singles := file_paths.single_files(folder):
    depth = len(singles[0].relative_to(folder).parts) - 1
    pattern = folder.joinpath(*['*'] * depth, f'*{singles[0].suffix}')
    message += f'; {len(singles)} of its folders have one image each: give them as {printable(pattern)}'
  return message


def _check_images(paths: list[Path]) -> list[Path]:
  """Returns the paths after checking that they can be a stack."""
  expected = expected_suffixes()
  if len(paths) < 2:
    found = f'one image ({printable(paths[0])})' if paths else 'no images'
    raise InputError(f'{found} given, expected at least two ({expected})')
  seen = {}
  for path in paths:
    if path.is_dir():
      raise InputError(f'{printable(path)}: is a folder among several paths, expected one folder, or images only')
    if not is_image(path):
      raise InputError(f'{printable(path)}: not an image by its suffix, expected one of {expected}{_advice(path)}')
    if (name := _with_folder(path)) in seen:
      raise InputError(
        f'{printable(path)}: has the same name as {printable(seen[name])}, expected different names'
        ', and each image once'
      )
    seen[name] = path
  return paths


def _with_folder(path: Path) -> str:
  """Name of a frame that others in other folders have, too."""
  return printable(f'{path.parent.name}/{path.name}')


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
