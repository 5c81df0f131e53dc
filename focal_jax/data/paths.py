"""Paths as people type them: with commas, patterns, or letters composed differently from those on disk; and what
lies in a folder.
"""

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from focal_jax.data.formats import is_image
from focal_jax.data.names import comparable, natural_order

_MAX_PARTS = 16  # maximum number of parts of a path that a list flag has split at its commas
_DEPTH = 4  # levels of folders that are searched


def stack_source(values: Sequence[str]) -> str | list[str]:
  """Argument for `read_stack_folder` from the value of a comma-separated list flag.

  A path that exists is used as it is, including its commas, and white space around them, which absl strips. A pattern
  such as `frames/*.jpg` is passed on if it is the only value; otherwise it is replaced by the matching files in natural
  order. A `file://` prefix, which file managers copy, is removed.

  Args:
    values: value of the flag, as split by absl.
  """
  values = [unquote(urlsplit(value).path) if value.startswith('file://') else value for value in values]
  if (whole := _on_disk(','.join(values))) is not None:
    return whole
  if len(values) == 1:
    return values[0]
  found = []
  start = 0
  while start < len(values):
    # The longest run of parts that is one path; the reader rejects parts that are not a path.
    for end in range(min(len(values), start + _MAX_PARTS), start, -1):
      path = _on_disk(','.join(values[start:end]))
      if path is not None:
        break
    if path is None and (matches := expand_pattern(values[start])):
      found += map(str, matches)
    else:
      found.append(values[start] if path is None else path)
    start = end
  return found if len(found) > 1 else found[0]


def expand_pattern(pattern: str) -> list[Path] | None:
  """The files that match a shell pattern, in natural order; None if it is not a pattern, or if the path exists."""
  if not glob.has_magic(pattern) or Path(pattern).exists():
    return None
  path = Path(os.path.expanduser(pattern))
  # Folders that exist may have brackets in their names.
  folder = next((parent for parent in path.parents if parent.exists()), path.parents[-1])
  pattern = str(Path(glob.escape(str(folder)), path.relative_to(folder)))
  matches = [Path(path) for path in glob.glob(pattern, recursive=True)]
  return natural_order(path for path in matches if path.is_file())


def existing(path: str | Path) -> Path:
  """The path on disk: the given one, or the one whose letters are composed differently; else the given one."""
  found = _on_disk(str(path))
  return Path(path) if found is None else Path(found)


def _on_disk(text: str) -> str | None:
  """The path if it exists, or the only one that looks the same except for white space around commas."""
  if not text:
    return None
  path = Path(text)
  try:
    if path.exists():
      return text
    path = path.expanduser()
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
      if (found / part).exists():
        found /= part
        continue
      alike = [entry for entry in found.iterdir() if _looks(entry.name) == _looks(part)]
      if len(alike) != 1:
        return None
      found = alike[0]
  except (OSError, ValueError, RuntimeError):  # unreadable folder; name too long; no home
    return None
  return str(found)


def _looks(name: str) -> str:
  return re.sub(r'\s*,\s*', ',', comparable(name).strip())


def stack_folders(folder: Path, limit: int = 1000) -> dict[str, int]:
  """Number of images in the folders below `folder`, some levels deep, that contain two or more, by relative path.

  At most `limit` folders are searched.
  """
  found = {}
  for path in natural_order(itertools.islice(_below(folder, _DEPTH), limit)):
    count = sum(is_image(entry) for entry in entries(path) if entry.is_file())
    if count > 1:
      found[str(path.relative_to(folder))] = count
  return found


def single_files(folder: Path, limit: int = 1000) -> list[Path]:
  """The images that are alone in their folders, if there are several such folders side by side below `folder`."""
  found = []
  for path in natural_order(itertools.islice(_below(folder, _DEPTH), limit)):
    there = [entry for entry in entries(path) if is_image(entry) and entry.is_file()]
    if len(there) == 1:
      found += there
  level = {len(path.parts) for path in found}
  return found if len(found) > 1 and len(level) == 1 else []


def files_below(folder: Path, limit: int = 1000) -> list[Path]:
  """Files in the folders below `folder`, some levels deep. At most `limit` folders are searched."""
  return [entry for path in itertools.islice(_below(folder, _DEPTH), limit) for entry in entries(path)]


def _below(folder: Path, depth: int) -> Iterator[Path]:
  for entry in entries(folder):
    # Not folders of systems and NAS devices (.thumbnails, @eaDir, __MACOSX), and not results of a prediction.
    if entry.is_dir() and not entry.name.startswith(('.', '@', '__')) and not (entry / 'summary.json').exists():
      yield entry
      if depth > 1:
        yield from _below(entry, depth - 1)


def entries(folder: Path) -> list[Path]:
  """What is in a folder; [] if it cannot be listed, although files in it may be readable."""
  try:
    return list(folder.iterdir())
  except OSError:
    return []


def is_there(path: Path) -> bool:
  """Whether there is such a file, or a link to one that is missing, which is an error and not the same as no file."""
  return path.exists() or path.is_symlink()


def find_ignoring_case(folder: Path, name: str) -> Path:
  """The file with this name, in lower case, in a folder, or the only one whose name differs just in case."""
  path = folder / name
  if is_there(path):
    return path
  alike = [entry for entry in entries(folder) if entry.name.lower() == name]
  return alike[0] if len(alike) == 1 else path
