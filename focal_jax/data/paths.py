"""Paths as people give them: with commas, with patterns, with letters composed in another way than on the disk."""

import glob
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from focal_jax.data.names import comparable, natural_order

_MAX_PARTS = 16  # of one path that a list flag has cut at its commas


def stack_source(values: Sequence[str]) -> str | list[str]:
  """What `read_stack_folder` takes, from the value of a flag that is a list separated by commas.

  A path that exists is taken as it is, commas and all. absl strips white space around the commas, too; that is found
  again. Patterns such as `frames/*.jpg` that are no path are left to `read_stack_folder` if there is nothing else,
  otherwise replaced by the files that match, in natural order. file:// is taken off, as file managers copy paths.

  Args:
    values: of the flag, as absl cuts them.
  """
  values = [unquote(urlsplit(value).path) if value.startswith('file://') else value for value in values]
  if (whole := _on_disk(','.join(values))) is not None:
    return whole
  if len(values) == 1:
    return values[0]
  found = []
  start = 0
  while start < len(values):
    # The longest run of parts that is one path; a part that is no path is left for the reader to refuse.
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
  """The files that match a shell pattern, in natural order; None if it is none, or the path exists."""
  if not glob.has_magic(pattern) or Path(pattern).exists():
    return None
  matches = [Path(path) for path in glob.glob(pattern, recursive=True)]
  return natural_order(path for path in matches if path.is_file())


def existing(path: str | Path) -> Path:
  """The path on the disk that it means: itself, or one whose letters are composed in another way; else itself."""
  found = _on_disk(str(path))
  return Path(path) if found is None else Path(found)


def _on_disk(text: str) -> str | None:
  """The path if there is one, or the only one that looks the same but for white space around its commas."""
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
  except (OSError, ValueError, RuntimeError):  # not to be listed; a name too long; no home
    return None
  return str(found)


def _looks(name: str) -> str:
  return re.sub(r'\s*,\s*', ',', comparable(name).strip())


def stack_folders(folder: Path, is_image: Callable[[Path], bool], limit: int = 1000) -> dict[str, int]:
  """Folders below `folder`, two levels deep, that hold two images or more: how many, by relative path.

  At most `limit` folders are looked into.
  """
  found = {}
  for path in natural_order(itertools.islice(_below(folder, depth=2), limit)):
    count = sum(is_image(entry) for entry in _entries(path) if entry.is_file())
    if count > 1:
      found[str(path.relative_to(folder))] = count
  return found


def _below(folder: Path, depth: int) -> Iterator[Path]:
  for entry in _entries(folder):
    if entry.is_dir() and not entry.name.startswith('.'):
      yield entry
      if depth > 1:
        yield from _below(entry, depth - 1)


def _entries(folder: Path) -> list[Path]:
  try:
    return list(folder.iterdir())
  except OSError:
    return []
