"""Chooses the files, or pages of a file, that are the frames of a user's focal stack."""

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from focal_jax.data import capture_order, series
from focal_jax.data import paths as file_paths
from focal_jax.data.formats import TIFF_SUFFIXES, badly_named, expected_suffixes, is_image, other_types, unread
from focal_jax.data.header import FrameFile, FrameHeader, read_header
from focal_jax.data.metadata import METADATA_FILES, Sweep, count_distances
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

_FEW = 3  # a folder with more images is not the parent of the stacks

# Images that prediction writes.
_RESULTS = ('all_in_focus.png', 'alignment.gif', 'confidence.png', 'contact_sheet.png', 'depth.png', 'depth_16bit.png')


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenFrames:
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


def choose_frames(
  source: str | Path | Sequence[str | Path], channel: int | None, unreadable: Unreadable
) -> ChosenFrames:
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


def _choose_pages(stack: PageStack, notes: list[str], unreadable: Unreadable) -> ChosenFrames:
  """Frames that are pages of one file."""
  headers = _read_headers(stack.files, unreadable)
  pages = Sweep(stack.positions, stack.unit, stack.source) if stack.positions is not None else None
  names = [file.name for file in stack.files]
  order = 'the order of the pages'
  return ChosenFrames(headers, stack.files[0].path.parent, names, order, pages, notes + stack.notes, unreadable)


def _choose_files(paths: list[Path], unreadable: Unreadable) -> ChosenFrames:
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
  return ChosenFrames(headers, folder, all_names, order, None, notes, unreadable)


def _choose_series(
  folder: Path, paths: list[Path], notes: list[str], channel: int | None, unreadable: Unreadable
) -> ChosenFrames:
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
  places, times = capture_order.by_time(
    [header.file.name for header in headers], [header.exif.taken_s for header in headers]
  )
  if places:
    headers = [headers[n] for n in places]
  order = 'the order of capture' if places else 'name order'
  if not places and capture_order.tell_no_order([header.file.path.stem for header in headers]):
    order = 'alphabetical order'
  if not places:
    times = times + order_notes([header.file.name for header in headers])
  notes = notes + remarks + odd + times
  return ChosenFrames(headers, folder, all_names, order, None, notes, unreadable, all_listed=bool(kept))


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
