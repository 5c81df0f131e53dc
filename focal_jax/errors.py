"""Exceptions that end a command with one line: bad input, and work that cannot continue."""

import errno
import re

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of an OSError: nothing more can be written there


class InputError(ValueError):
  """Bad input. The message is one line: the file or field, what was found, what was expected.

  The command line prints it without a traceback and exits with `status`; library users may catch it as a `ValueError`.
  """

  status = 2


class RunError(RuntimeError):
  """Work that cannot continue, for example on a full disk. The message is one line: what happened, what is left."""

  status = 1


class Stopped(RunError):
  """A run was told to stop and has saved its state. The status is that of a program killed by `signal`."""

  def __init__(self, message: str, signal: int):
    super().__init__(message)
    self.status = 128 + signal


def disk_full(error: OSError) -> str | None:
  """Why nothing more can be written, in one line; None: the error has another reason."""
  if error.errno in _DISK_FULL:
    return one_line(error)
  if error.errno is None and re.fullmatch(r'\d+ requested and \d+ written', str(error)):  # NumPy drops the reason
    return 'a file was only partly written: the disk is probably full'
  return None


def one_line(error: Exception) -> str:
  """The message of another library's exception, in one line."""
  return ' '.join(str(error).split())
