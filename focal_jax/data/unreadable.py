"""Frames that cannot be read. A few of them are left out of a stack, with a note."""

import contextlib
import math
from collections.abc import Iterator

from focal_jax.data.names import format_list, printable
from focal_jax.errors import InputError

_MIN_READABLE = 3  # minimum number of readable frames


class UnreadableError(InputError):
  """An image file, or a page of one, cannot be read.

  Attributes:
    reason: why, without the name of the file.
  """

  def __init__(self, message: str, reason: str):
    super().__init__(message)
    self.reason = reason


class Unreadable:
  """The frames of a stack that cannot be read.

  Attributes:
    errors: by the name of the frame, in the order in which they were found.
  """

  def __init__(self, *, allowed: bool = True):
    """`allowed`: frames may be left out; otherwise the first unreadable one raises its error."""
    self._allowed = allowed
    self.errors: dict[str, UnreadableError] = {}

  @contextlib.contextmanager
  def noting(self, name: str) -> Iterator[None]:
    """Records an UnreadableError for the frame of this name instead of raising it, if that is allowed."""
    try:
      yield
    except UnreadableError as error:
      if not self._allowed:
        raise
      self.errors.setdefault(name, error)

  def check(self, readable: int) -> None:
    """Checks that at least three and half of the frames can be read.

    Args:
      readable: number of frames that can be read.

    Raises:
      InputError: too few can be read.
    """
    total = readable + len(self.errors)
    least = max(_MIN_READABLE, math.ceil(total / 2))
    if not self.errors or readable >= least:
      return
    first, *others = self.errors.values()
    more = f', nor can {format_list(list(self.errors)[1:])}' if others else ''
    raise InputError(f'{first}{more}; {readable} of {total} frames can be read, expected at least {least}') from first

  def notes(self) -> list[str]:
    """One sentence per reason."""
    by_reason: dict[str, list[str]] = {}
    for name, error in self.errors.items():
      by_reason.setdefault(error.reason, []).append(name)
    return [
      f'Left out: {format_list(names)}, which cannot be read as {"an image" if len(names) == 1 else "images"} '
      f'({printable(reason)}).'
      for reason, names in by_reason.items()
    ]
