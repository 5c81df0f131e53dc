"""The order in which frames were captured, by their times and by the counters in their names."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from focal_jax.data.names import MAX_LEFT_OUT, printable, varying_columns


def by_time(names: Sequence[str], taken_s: Sequence[float | None]) -> tuple[list[int] | None, list[str]]:
  """The order of capture, if the natural order of the names is not reliable.

  Capture time overrides a counter that passes 9999, and names without numbers. Other names that contradict it are kept:
  they may be positions, and files may have been renamed on purpose.

  Args:
    names: file names in natural order.
    taken_s: capture time of each, s. None: unknown.

  Returns:
    Indices in the order of capture, or None if the order of the names is kept; and notes.
  """
  if any(time is None for time in taken_s) or len(set(taken_s)) < 2:
    return _by_counter(names)
  order = sorted(range(len(names)), key=lambda n: (taken_s[n], n))
  if order == list(range(len(names))):
    return None, []
  stems = [Path(name).stem for name in names]
  turns = [k for k in range(1, len(names)) if _rises([*taken_s[k:], *taken_s[:k]])]
  if len(turns) == 1 and _counter_wraps(stems):
    (k,) = turns
    return [*range(k, len(names)), *range(k)], [
      f'The counter in the names wraps around: by capture time (EXIF), {printable(names[k])} is first and '
      f'{printable(names[k - 1])} is last.'
    ]
  if len(set(taken_s)) == len(names) and tell_no_order(stems):
    return order, ['The names have no order: the frames were sorted by capture time (EXIF).']
  if _rises(list(taken_s)[::-1]):
    return None, ['Capture time (EXIF) is opposite to the order of the names, which was kept.']
  return None, ['Capture time (EXIF) contradicts the order of the names, which was kept.']


def _by_counter(names: Sequence[str]) -> tuple[list[int] | None, list[str]]:
  """Like `by_time`, from names alone: a camera's counter that wraps, otherwise increasing in small steps."""
  stems = [Path(name).stem for name in names]
  if len(stems) < 3 or not _counter_wraps(stems):
    return None, []
  numbers = counters(stems)
  steps = [b - a for a, b in itertools.pairwise(numbers)]
  turn = 1 + max(range(len(steps)), key=steps.__getitem__)
  del steps[turn - 1]
  ends = max(numbers) == 10 ** len(str(max(numbers))) - 1 and min(numbers) <= 1
  if max(numbers) < (100 if ends else 1000) or not all(0 < step <= MAX_LEFT_OUT for step in steps):
    return None, []
  return [*range(turn, len(names)), *range(turn)], [
    f'The counter in the names wraps around: {printable(names[turn])} was taken as the first frame and '
    f'{printable(names[turn - 1])} as the last.'
  ]


def _rises(values: Sequence[float]) -> bool:
  return all(a <= b for a, b in itertools.pairwise(values)) and values[0] < values[-1]


def counters(stems: list[str]) -> list[int] | None:
  """The numbers that distinguish the names, if each name has one and they have equally many digits."""
  differing = varying_columns([re.findall(r'\d+', stem) for stem in stems])
  if len(differing) != 1 or len({len(text) for text in differing[0]}) != 1 or len(differing[0][0]) < 2:
    return None
  return [int(text) for text in differing[0]]


def _counter_wraps(stems: list[str]) -> bool:
  """Whether the numbers that distinguish the names are at both ends of the range of their digits, none between."""
  if (numbers := counters(stems)) is None:
    return False
  numbers = sorted(numbers)
  end = 10 ** len(str(numbers[-1]))  # cameras count to 9999, in a number that may have more digits
  gaps = [b - a for a, b in itertools.pairwise(numbers)]
  return numbers[-1] >= 0.9 * end and numbers[0] <= 0.1 * end and max(gaps) > 0.5 * end


def tell_no_order(stems: list[str]) -> bool:
  """Whether the names have no numbers and are not alphabetical, or are random hexadecimal numbers."""
  if all(re.fullmatch(r'(?=.*[a-f])[0-9a-f-]{8,}', stem.lower()) for stem in stems):
    return True
  return not any(character.isdigit() for stem in stems for character in stem) and max(map(len, stems)) > 1
