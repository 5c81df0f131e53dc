"""Selects the frames among the files of a folder, which may also hold results of other programs, edited copies and the
like.

A file is left out only on clear evidence, and always with a note. If the names have nothing in common, all files are
frames.
"""

import filecmp
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import NamedTuple

from focal_jax.data.capture_order import counters
from focal_jax.data.formats import HEIC_SUFFIXES, JPEG_SUFFIXES, TIFF_SUFFIXES
from focal_jax.data.frames import orientations
from focal_jax.data.header import FrameHeader
from focal_jax.data.names import (
  comparable,
  format_list,
  hexadecimal_as_decimal,
  infinity_as_digit,
  printable,
  varying_columns,
)

# Words in the names of programs' results. If all names of a series have them, they are ignored.
_RESULTS = re.compile(
  'depth|dmap|pmax|overlay|composite|disparity|height|stack|fus(ed|ion)|result|output|merged?|blend|focus|aif|edof|'
  'mask|confidence|normals?|mesh|points|thumb|preview|edit|small|resized|copy|kopie|copie|retouch|final|report|sheet|'
  'montage|truth|reference'
)
_OF_HELICON = re.compile(r'\([abc],r\d+')  # Helicon Focus writes its settings into the names of its results
# Additions of cameras and phones to the names of some frames.
_OF_CAMERAS = re.compile('cover|burst|mp|hdr|portrait|night|img|top|bottom|far|near|first|last|start|end|begin')
# Names of copies: IMG_1 (1), IMG_1~2, IMG_1-2, IMG_1 2.
_COPY = re.compile(r'(.+?)(?: ?\(\d+\)|~\d+|[- ]\d)')
# A capture time in the name: then (1) is the next image of the same second.
_TIME = re.compile(r'\d{8}[-_ t]?\d{6}|(?<!\d)\d{2}[.:h_-]\d{2}[.:m_-]\d{2}(?!\d)')
_CHANNEL_WORDS = ('c', 'ch', 'chan', 'channel', 'w', 'wavelength')
# Names of channels: dyes, illuminations and colours.
_CHANNEL_NAMES = re.compile(
  r'(?:(?<![^\W_])|(?<=_c)|(?<=_ch))(?:dapi|hoechst|e?[bcgry]fp|fitc|tritc|texas ?red|mcherry|tdtomato|rhodamine|'
  r'cy[357]|(?:af|alexa|atto)[ -]?(?:fluor)?[ -]?\d{3}|[3-8]\d\d ?nm|bf|brightfield|phase|dic|red|green|blue)'
  r'(?![^\W_])'
)
_PRIMARY_COLOURS = re.compile(r'(?<![^\W_])[rgb](?![^\W_])')  # channels if all three are there
_OVERLAY = re.compile(r'(?<=\d)\+\d+(?![^\W_])')  # an image of several channels: c1+2
_ORDINAL = re.compile(r'(?<=\d)(?:st|nd|rd|th)(?![^\W_])')
_VERSIONS = re.compile('hdr|portrait|night')  # versions of an image that also exists without the word
# If a photograph is stored in several formats, the first of these is used.
_BEST_FIRST = ('tif', 'png', 'heic', 'jxl', 'avif', 'webp', 'bmp', 'jpg')
_KINDS = {suffix: same[0][1:] for same in (JPEG_SUFFIXES, TIFF_SUFFIXES, HEIC_SUFFIXES) for suffix in same}


def without_duplicate_formats(paths: list[Path], kept: set[str]) -> tuple[list[Path], list[str]]:
  """Keeps one of the files that differ only in their suffix, as written by cameras and converters: one format, and one
  spelling of its suffix.

  Args:
    paths: in their order.
    kept: names that are always kept.

  Returns:
    The remaining paths, and notes.
  """
  by_stem: dict[str, list[Path]] = {}
  for path in paths:
    by_stem.setdefault(path.stem, []).append(path)
  if len(by_stem) == len(paths):
    return paths, []
  counts = Counter(_kind(path) for path in paths)
  spellings, sizes = Counter(path.suffix for path in paths), Counter()
  for path in paths:
    sizes[path.suffix] += path.stat().st_size if path.exists() else 0  # the larger files are the originals

  def rank(path: Path) -> tuple:
    kind = _kind(path)
    best = _BEST_FIRST.index(kind) if kind in _BEST_FIRST else 9
    return path.name not in kept, -counts[kind], best, -spellings[path.suffix], -sizes[path.suffix]

  best = {stem: min(twins, key=rank) for stem, twins in by_stem.items()}
  dropped = [path for path in paths if path != best[path.stem] and path.name not in kept]
  if not dropped:
    return paths, []
  taken = ', '.join(sorted({best[path.stem].suffix for path in dropped}))
  names = format_list([path.name for path in dropped])
  gone = set(dropped)
  return [path for path in paths if path not in gone], [
    f'Left out: {names}, because files with the same names in {taken} are read.'
  ]


def without_other_series(paths: list[Path], kept: set[str]) -> tuple[list[Path], list[str]]:
  """Removes files whose names do not fit the series of the others; arguments and result as for
  `without_duplicate_formats`.
  """
  names = [_Name.of(path) for path in paths]
  no_results = [name for name in names if name.path.name in kept or not _is_result(name.words)]
  if hexadecimal_as_decimal([name.stem for name in no_results]):  # its letters are no words
    return _without(paths, set(paths).difference(name.path for name in no_results))
  numbered = Counter(name.words for name in names if name.numbered)
  if not numbered:
    return _without_results(names, kept)
  # There may be as many maps as frames: IMG_1.jpg and IMG_1_depth.png.
  words = max(numbered, key=lambda group: (numbered[group] - 0.5 * _is_result(group), -len(group)))
  series = _Series(words, [name for name in names if name.numbered and name.words == words])
  members = len(series.names)
  others = [
    name
    for name in names
    if name.words != words and (_is_result(words) or not _is_result(name.words)) and not series.has_version(name)
  ]
  if members < 2 or members <= len(others):
    return paths, _two_series(numbered, names)
  outside = [name for name in names if name.words != words or not name.numbered]
  dropped = series.odd_members() | {name.path for name in outside if series.excludes(name, alone=False)}
  if 4 * members >= 3 * (len(paths) - len(dropped)):  # nearly all
    dropped |= {name.path for name in outside if series.excludes(name, alone=numbered[name.words] == 1)}
  dropped = {path for path in dropped if path.name not in kept}
  if not dropped:
    return paths, _two_series(numbered, names)
  return _without(paths, dropped, [name.path for name in series.names if name.path not in dropped])


def _without(paths: list[Path], dropped: set[Path], series: list[Path] | None = None) -> tuple[list[Path], list[str]]:
  """The paths that are not dropped, and a note that names the series; by default that of all these paths."""
  remaining = [path for path in paths if path not in dropped]
  if not dropped:
    return remaining, []
  series = series or remaining
  ends = f'{printable(series[0].name)} .. {printable(series[-1].name)}'
  verb = 'does' if len(dropped) == 1 else 'do'
  names = format_list([path.name for path in paths if path in dropped])
  return remaining, [f'Left out: {names}, which {verb} not fit the series {ends} by name.']


def _without_results(names: list['_Name'], kept: set[str]) -> tuple[list[Path], list[str]]:
  """Like `without_other_series`, for names without numbers: removes at most a third, by the words for results."""
  paths = [name.path for name in names]
  results = [name.path.name for name in names if _is_result(name.words) and name.path.name not in kept]
  if not results or 3 * len(results) > len(paths) or len(paths) - len(results) < 2:
    return paths, []
  verb = 'is called' if len(results) == 1 else 'are called'
  gone = set(results)
  return [path for path in paths if path.name not in gone], [
    f'Left out: {format_list(results)}, which {verb} like a result.'
  ]


class _Name(NamedTuple):
  """What the name of a file says.

  Attributes:
    path: the file.
    stem: comparable name without suffix.
    words: its letters, without numbers and separators.
    numbered: it contains a number, or a word for infinity.
  """

  path: Path
  stem: str
  words: tuple[str, ...]
  numbered: bool

  @classmethod
  def of(cls, path: Path) -> '_Name':
    stem = comparable(path.stem)
    digits = infinity_as_digit(stem)
    words = tuple(re.findall(r'[^\W\d_]+', _ORDINAL.sub('', digits)))
    return cls(path, stem, words, any(map(str.isdigit, digits)))


class _Series:
  """Files with numbers and the same words in their names: most of them are frames."""

  def __init__(self, words: tuple[str, ...], names: list[_Name]):
    self.words, self.names = words, names
    self._by_stem = {name.stem: name for name in names}
    self._numbers = {tuple(re.findall(r'\d+', stem)) for stem in self._by_stem}

  def has_version(self, name: _Name) -> bool:
    """Whether a name is that of a file of the series with a word added: IMG_1_aligned, IMG_1-Enhanced-NR."""
    return any(
      name.stem[: added.start()] in self._by_stem and not _OF_CAMERAS.fullmatch(added[1])
      for added in re.finditer(r'(?<=\d)[\W_]+([^\W\d_]{3,})', name.stem)
    )

  def odd_members(self) -> set[Path]:
    """Files of the series that are copies of others, IMG_1 (1).jpg beside IMG_1.jpg, or the result of another program:
    the only file of its format, which fills no gap in the numbers.
    """
    copies = [
      (name, self._by_stem[copy[1]])
      for name in self.names
      if (copy := _COPY.fullmatch(name.stem)) and copy[1] in self._by_stem
    ]
    odd = set()
    if 2 * len(copies) < len(self.names):  # not if most frames have such names
      odd = {name.path for name, base in copies if not _may_be_a_burst(name, base) or _same_bytes(name.path, base.path)}
    (kind, count), *others = Counter(_kind(name.path) for name in self.names).most_common()
    if count >= 3 and [number for _, number in others] == [1]:
      alone = next(name for name in self.names if _kind(name.path) != kind)
      if not self._fills_a_gap(alone):
        odd.add(alone.path)
    return odd

  def excludes(self, name: _Name, alone: bool) -> bool:
    """Whether a file that does not belong to the series is no frame either.

    Args:
      name: of the file.
      alone: no other file has its words, and nearly all belong to the series.
    """
    stem, added = name.stem, tuple(word for word in name.words if word not in self.words)
    if self.has_version(name) or _is_result(added) or _OF_HELICON.search(stem):
      return True
    derived = any(stem[:n] in self._by_stem for n in range(len(stem)))  # for example IMG_1 edited
    if derived and any(stem[n:] in self._by_stem for n in range(len(stem))):  # IMG_1-IMG_9 is the stack of all
      return True
    is_infinity = infinity_as_digit(stem) != stem  # which has no unit
    if len(self.names) == 2 or (not added and name.numbered and (name.words or not self.words or is_infinity)):
      return False  # for example z_0 with z_-1.5um and z_1.5um
    if set(self.words) <= set(name.words) and all(len(word) == 1 or _OF_CAMERAS.fullmatch(word) for word in added):
      # IMG_E0001 is IMG_0001 edited, on phones, but frame1b may follow frame1.
      if derived and any(_VERSIONS.fullmatch(word) for word in added):
        return True
      same_number = added == ('e',) and tuple(re.findall(r'\d+', stem)) in self._numbers and not derived
      return same_number or not (name.numbered or self._begins_with(name))
    return derived or not name.numbered or alone

  def _begins_with(self, name: _Name) -> bool:
    """Whether a name without a number is the first of a series: image.jpg, image (1).jpg, image (2).jpg."""
    return all(re.fullmatch(r'\W*_?[1-9]\d*\W*', stem.removeprefix(name.stem)) for stem in self._by_stem)

  def _fills_a_gap(self, name: _Name) -> bool:
    """Whether the number of a file is the only one missing between two of the other files."""
    numbers = counters([name.stem, *(other.stem for other in self.names if other.path != name.path)])
    return numbers is not None and numbers[0] not in numbers[1:] and {numbers[0] - 1, numbers[0] + 1} <= set(numbers)


def without_outlier_frames(headers: list[FrameHeader], kept: set[Path]) -> tuple[list[FrameHeader], list[str]]:
  """Removes frames whose size, colour mode (grey or not) or number of images differs from nearly all others.

  Args:
    headers: of the frames.
    kept: files that are always kept.

  Returns:
    The remaining headers, and notes.
  """
  headers, notes = _without_reduced_copies(headers, kept)
  turns, _ = orientations(headers)
  sizes = {header.file: header.size(turn) for header, turn in zip(headers, turns, strict=True)}
  # Property, its description, minimum number of frames that share it, and maximum number of others.
  tests: list[tuple[Callable[[FrameHeader], Hashable], Callable[[Hashable], str], int, float]] = [
    (lambda header: sizes[header.file], lambda size: f'{size[0]} x {size[1]} pixels', 2, math.inf),
    (lambda header: header.pages > 1, lambda several: 'multi-page' if several else 'single images', 2, math.inf),
    (lambda header: header.grey, lambda grey: 'grey' if grey else 'in colour', 3, 1),
  ]
  for value_of, described, fewest, most in tests:
    values = [value_of(header) for header in headers]
    (usual, count), *others = Counter(values).most_common()
    odd = [header for header, value in zip(headers, values, strict=True) if value != usual]
    if not 0 < len(odd) <= min(most, len(headers) / 3) or count < fewest:
      continue
    if any(header.file.path in kept for header in odd):
      continue
    seen = ', '.join(described(value) for value, _ in others)
    verb = 'is' if len(odd) == 1 else 'are'
    names = format_list([header.file.name for header in odd])
    notes.append(f'Left out: {names}, which {verb} {seen}; the others are {described(usual)}.')
    headers = [header for header, value in zip(headers, values, strict=True) if value == usual]
  return headers, notes


def _without_reduced_copies(headers: list[FrameHeader], kept: set[Path]) -> tuple[list[FrameHeader], list[str]]:
  """Removes images that are smaller than those whose names theirs contain: tn_IMG_1 and IMG_1-300x200 beside IMG_1."""
  largest = max((header.stored_size for header in headers), key=math.prod, default=(0, 0))
  originals = [header for header in headers if header.stored_size == largest]
  others = [header for header in headers if header.stored_size != largest]
  stems = {comparable(header.file.path.stem) for header in originals}
  lengths = {len(stem) for stem in stems}

  def is_copy(header: FrameHeader) -> bool:
    if math.prod(header.stored_size) >= math.prod(largest) or header.file.path in kept or not header.file.alone:
      return False
    stem = comparable(header.file.path.stem)
    places = ((start, start + length) for length in lengths for start in range(len(stem) - length + 1))
    return any(stem[start:end] in stems and _is_addition(stem[:start], stem[end:]) for start, end in places)

  if len(originals) < 2 or not others or not all(map(is_copy, others)):  # others that are smaller: no such set
    return headers, []
  verb = 'is a reduced copy' if len(others) == 1 else 'are reduced copies'
  names = format_list([header.file.name for header in others])
  return originals, [f'Left out: {names}, which by name and size {verb}.']


def _is_addition(before: str, behind: str) -> bool:
  """Whether something was added to a name, other than digits that make it another number."""
  return bool(before + behind) and not before[-1:].isdigit() and not behind[:1].isdigit()


def by_channel(paths: list[Path]) -> list[list[Path]] | None:
  """The files of each channel, in the order of their numbers or names, if the files are numbered in each of several
  channels, as in z000_ch00, z000_ch01 or z0_DAPI, z0_FITC. None: they are not.
  """
  by_stem = {comparable(path.stem): path for path in paths}
  stems = [stem for stem in by_stem if not _OVERLAY.search(stem) or _OVERLAY.sub('', stem) not in by_stem]
  paths = [by_stem[stem] for stem in stems]
  colours = {name for stem in stems for name in _PRIMARY_COLOURS.findall(stem)}
  pattern = _PRIMARY_COLOURS if len(colours) == 3 else _CHANNEL_NAMES
  names = sorted({name for stem in stems for name in pattern.findall(stem)})
  stems = [pattern.sub(lambda found: f' c{names.index(found[0])}', stem) for stem in stems]
  rows = [re.findall(r'([^\W\d_]*)[\W_]?(\d+)', stem) for stem in stems]
  if len({tuple(word for word, _ in row) for row in rows}) != 1:
    return None
  varying = list(dict.fromkeys(varying_columns(rows)))  # each once
  named = [column for column in varying if column[0][0] in _CHANNEL_WORDS]
  if len(varying) != 2 or len(named) != 1:
    return None
  groups: dict[int, list[Path]] = {}
  for path, (_, number) in zip(paths, named[0], strict=True):
    groups.setdefault(int(number), []).append(path)
  others = len(set(varying[1 - varying.index(named[0])]))
  if others < 2 or any(len(group) != others for group in groups.values()):
    return None
  return [groups[number] for number in sorted(groups)]


def _same_bytes(path: Path, other: Path) -> bool:
  try:
    return filecmp.cmp(path, other, shallow=False)
  except OSError:
    return False


def _kind(path: Path) -> str:
  suffix = path.suffix.lower()
  return _KINDS.get(suffix, suffix[1:])


def _may_be_a_burst(name: _Name, base: _Name) -> bool:
  """Whether IMG_20240501_120000(1) may be the next image of the same second; with ~2 it is an edited copy."""
  return bool(_TIME.search(base.stem)) and not name.stem.removeprefix(base.stem).startswith('~')


def _is_result(words: tuple[str, ...]) -> bool:
  return bool(_RESULTS.search(' '.join(words)))


def _two_series(numbered: Counter, names: list[_Name]) -> list[str]:
  """A note if there are two series of names: which one is meant is unknown."""
  groups = [words for words, count in numbered.most_common(2) if count >= 3]
  if len(groups) == 2 and not (set(groups[0]) <= set(groups[1]) or set(groups[1]) <= set(groups[0])):
    firsts = [next(printable(name.path.name) for name in names if name.words == words) for words in groups]
  else:
    firsts = _in_a_grid(names)
  if not firsts:
    return []
  return [f'The names look like more than one series ({firsts[0]} ..., {firsts[1]} ...): all were read as one stack.']


def _in_a_grid(names: list[_Name]) -> list[str]:
  """The first names of each series if every value of one number occurs with every value of another that has few, such
  as a camera or channel: cam0_000 .. cam0_005, cam1_000 .. cam1_005.
  """
  varying = varying_columns([re.findall(r'\d+', name.stem) for name in names])
  if len(varying) != 2 or len(set(zip(*varying, strict=True))) < len(names):
    return []
  counts = [len(set(column)) for column in varying]
  if counts[0] * counts[1] != len(names) or max(counts) < 3 or min(counts) > 4:
    return []
  series = varying[counts.index(min(counts))]
  return [printable(names[series.index(value)].path.name) for value in list(dict.fromkeys(series))[:2]]
