"""File names: printing, comparing and sorting."""

import itertools
import os
import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path

from focal_jax.data.units import INFINITY, UNIT_IN_NAME

# Characters after which a minus is no sign: digits, as in dates; and letters, unless the other names say that signs
# follow letters (`signs_follow_letters`).
BEFORE_SEPARATOR = {False: r'[^\W_]', True: r'\d'}
# A single point or comma between digits is decimal, except in dates and times such as 12.30.59.
_UNSIGNED = r'(?<![\d.,])\d+[.,]\d+(?![.,]?\d)|\d+'
INFINITY_WORD = rf'(?<![^\W\d_]){INFINITY}'
# A frame focused at infinity, perhaps with a unit of length: counts as a number.
_INFINITE = rf'{INFINITY_WORD}(?=(?:mm|cm|m)?(?![^\W_]))'
_SIGNED = {
  follow_letters: re.compile(rf'((?:(?<!{before})[-+\u2212](?=\d))?(?:{_UNSIGNED})|{_INFINITE})')
  for follow_letters, before in BEFORE_SEPARATOR.items()
}
_WITHOUT_SIGNS = re.compile(f'({_UNSIGNED}|{_INFINITE})')

MAX_LEFT_OUT = 4  # maximum step of the counter within a stack from which some photographs were deleted
_HEX_DIGITS = '0123456789abcdef'
_HEX_WITH_PREFIX = re.compile(r'(?<!\d)0x([0-9a-f]+)(?![^\W_])')
# Times with AM or PM, as in Screenshot 2024-05-01 at 1.00.01 PM.
_TIME_OF_12_HOURS = re.compile(r'(?<!\d)(1[0-2]|0?[1-9])([ .:_-]\d\d[ .:_-]\d\d)[\s_]?([ap])m(?![^\W_])')


def printable(name: str | os.PathLike[str]) -> str:
  """The name as printable text in one line. Bytes that are not UTF-8 are decoded as Latin-1, which old cameras and
  archives use.
  """
  text = os.fspath(name)
  try:
    text.encode()
  except UnicodeEncodeError:
    data = text.encode('utf-8', 'surrogateescape')  # any UTF-8, too, if the locale is ASCII
    try:
      text = data.decode()
    except UnicodeDecodeError:
      text = data.decode('latin-1')
  return re.sub(r'[\x00-\x1f\x7f-\x9f]', '\N{REPLACEMENT CHARACTER}', text)


def on_disk(name: str) -> str:
  """A printable name as that of a file to create: UTF-8 if the locale does not have its letters."""
  try:
    os.fsencode(name)
  except UnicodeEncodeError:
    return os.fsdecode(name.encode())
  return name


def comparable(name: str) -> str:
  """Key that is equal for names that look alike: composed (NFC) or decomposed (NFD) letters, any case."""
  return unicodedata.normalize('NFC', unicodedata.normalize('NFC', printable(name)).casefold())


def natural_order(paths: Iterable[Path]) -> list[Path]:
  """Sorted by folder and name, numbers as numbers: 2 before 10, 0.5 before 10.25, -5 before 0."""
  paths = list(paths)
  keys = dict(zip(paths, natural_keys([path.stem for path in paths]), strict=True))
  folders = list({path.parent for path in paths})
  by_folder = dict(zip(folders, natural_keys([str(folder) for folder in folders]), strict=True))
  return sorted(paths, key=lambda path: (by_folder[path.parent], keys[path], path.name))


def natural_keys(stems: list[str]) -> list[list[str | Decimal]]:
  """Sort key of each name, given the others: z-5 is minus 5 next to z0, but IMG-5 is number 5 next to IMG-6, and so is
  -5 next to -1 .. -4. Numbers that are only readable as hexadecimal count as such, and times with PM as afternoon.
  """
  stems = [_TIME_OF_12_HOURS.sub(_hour_of_day, comparable(stem)) for stem in stems]
  stems = hexadecimal_as_decimal(stems) or stems
  pattern = _WITHOUT_SIGNS if hyphens_count(stems) else _SIGNED[signs_follow_letters(stems)]
  return [_split(stem, pattern) for stem in stems]


def order_notes(names: list[str]) -> list[str]:
  """Notes about names whose natural order is not obvious; `names` are in that order."""
  stems = [comparable(Path(name).stem) for name in names]
  decimal = hexadecimal_as_decimal(stems)
  notes = ['The numbers in the file names were read as hexadecimal.'] if decimal else []
  if hyphens_count(decimal or stems):
    notes.append(
      f'The hyphens before the numbers in the file names were taken as separators, not as minus: {names[0]} is first.'
    )
  return notes


def hexadecimal_as_decimal(stems: list[str]) -> list[str] | None:
  """Comparable names with their hexadecimal counter as a decimal number; None: they have none.

  A counter begins with 0x, or is all that the names differ in, contains letters and rises in small steps.
  """
  if len(stems) < 2:
    return None
  if all(_HEX_WITH_PREFIX.search(stem) for stem in stems):
    return [_HEX_WITH_PREFIX.sub(lambda found: str(int(found[1], 16)), stem) for stem in stems]
  start = _common_start(stems)
  ends = [stem[start:] for stem in stems]
  same = _common_start([end[::-1] for end in ends])
  suffix = ends[0][len(ends[0]) - same :].lstrip(_HEX_DIGITS)
  counters = [end.removesuffix(suffix) for end in ends]
  digits = set(''.join(counters))
  if not all(counters) or not digits <= set(_HEX_DIGITS) or digits.isdisjoint('abcdef') or digits <= set('abcdef'):
    return None
  values = sorted(int(counter, 16) for counter in counters)
  largest = MAX_LEFT_OUT if len({len(counter) for counter in counters}) == 1 else 1
  if not all(0 < b - a <= largest for a, b in itertools.pairwise(values)):
    return None
  return [f'{stem[:start]}{int(counter, 16)}{suffix}' for stem, counter in zip(stems, counters, strict=True)]


def hyphens_count(stems: list[str]) -> bool:
  """Whether the minus signs of comparable names are separators: they precede a counter from 0 or 1 on in every name."""
  if not any('-' in stem for stem in stems):
    return False
  pattern = _SIGNED[signs_follow_letters(stems)]
  rows = [parts for stem in stems if len(parts := pattern.split(stem)) > 1]  # others have no number
  if len({tuple(row[::2]) for row in rows}) != 1:
    return False
  varying = [n for n in range(1, len(rows[0]), 2) if len({row[n] for row in rows}) > 1]
  if len(varying) != 1 or re.match(rf' ?{UNIT_IN_NAME}(?![^\W_])', rows[0][varying[0] + 1]):
    return False
  texts = [row[varying[0]] for row in rows]
  if not all(re.fullmatch(r'-\d+', text) for text in texts):
    return False
  numbers = sorted(-int(text) for text in texts)
  steps = [b - a for a, b in itertools.pairwise(numbers)]
  return numbers[0] <= 1 and min(steps) > 0 and max(steps) <= MAX_LEFT_OUT and 2 * steps.count(1) >= len(steps)


def varying_columns(rows: Sequence[Sequence[Hashable]]) -> list[tuple]:
  """The columns of a table, by rows, whose values are not all equal; [] if the rows differ in length."""
  if len({len(row) for row in rows}) != 1:
    return []
  return [column for column in zip(*rows, strict=True) if len(set(column)) > 1]


def _common_start(texts: list[str]) -> int:
  """Number of characters that all texts begin with."""
  ends = min(texts), max(texts)  # these differ the most
  return next((n for n, (a, b) in enumerate(zip(*ends, strict=False)) if a != b), min(map(len, ends)))


def _hour_of_day(found: re.Match[str]) -> str:
  return f'{int(found[1]) % 12 + 12 * (found[3] == "p"):02}{found[2]}'


def signs_follow_letters(stems: list[str]) -> bool:
  """Whether a plus or minus between a letter and a number is its sign, which it is if only some names have it."""

  def templates(signed: bool) -> set[str]:
    return {_SIGNED[signed].sub('#', stem) for stem in stems}

  return len(templates(True)) < len(templates(False))


def _split(stem: str, pattern: re.Pattern[str]) -> list[str | Decimal]:
  # The split gives text at even indices and numbers at odd ones, so text is never compared with a number.
  return [_number(part) if n % 2 else part for n, part in enumerate(pattern.split(stem))]


def infinity_as_digit(stem: str) -> str:
  """A comparable name in which a word for infinity that counts as a number is replaced by 9."""
  return re.sub(_INFINITE, '9', stem)


def _number(text: str) -> Decimal:
  if re.fullmatch(_INFINITE, text):
    return Decimal('Infinity')
  return Decimal(text.replace(',', '.').replace('\u2212', '-'))


def format_list(names: list[str], limit: int = 4) -> str:
  """Names for a message: all of them if few, otherwise the first ones and the number of others."""
  names = [printable(name) for name in names]
  if len(names) <= limit:
    return ', '.join(names)
  return f'{", ".join(names[: limit - 1])} and {len(names) - limit + 1} others'
