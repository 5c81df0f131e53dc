"""Files among the frames that cannot be read: a stack goes on without a few of them, and says so."""

import contextlib
import math
from collections.abc import Iterator

from focal_jax.data.names import listed, shown
from focal_jax.errors import InputError

_FEWEST = 3  # frames that must be left


class UnreadableError(InputError):
  """One file cannot be read as an image, or one page of it; `reason` says why, without its name."""

  def __init__(self, message: str, reason: str):
    super().__init__(message)
    self.reason = reason


class Unreadable:
  """The frames of one stack that could not be read.

  Attributes:
    errors: by the name of the frame, in the order in which they were found.
  """

  def __init__(self, *, allowed: bool = True):
    """`allowed`: a stack may go on without them; else the first one is an error."""
    self._allowed = allowed
    self.errors: dict[str, UnreadableError] = {}

  @contextlib.contextmanager
  def noting(self, name: str) -> Iterator[None]:
    """Goes on where the frame of this name cannot be read."""
    try:
      yield
    except UnreadableError as error:
      if not self._allowed:
        raise
      self.errors.setdefault(name, error)

  def check(self, readable: int) -> None:
    """Raises InputError if fewer than three frames or half of them are left."""
    total = readable + len(self.errors)
    least = max(_FEWEST, math.ceil(total / 2))
    if not self.errors or readable >= least:
      return
    first, *others = self.errors.values()
    more = f', nor can {listed(list(self.errors)[1:])}' if others else ''
    raise InputError(f'{first}{more}; {readable} of {total} frames can be read, expected {least} or more') from first

  def notes(self) -> list[str]:
    """A sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    for name, error in self.errors.items():
      by_reason.setdefault(error.reason, []).append(name)
    return [
      f'Left out: {listed(names)}, which cannot be read as {"an image" if len(names) == 1 else "images"} '
      f'({shown(reason)}).'
      for reason, names in by_reason.items()
    ]
