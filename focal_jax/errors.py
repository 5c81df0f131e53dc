"""The exceptions that end a command with one line: bad input, and work that cannot go on; and what others say, in one
line.
"""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # of an OSError: nothing more can be written there


class InputError(ValueError):
  """Bad input. The message is one line: the file or field, what was found, what was expected.

  The command line prints it without a traceback and exits with `status`; library users may catch it as a `ValueError`.
  """

  status = 2


class RunError(RuntimeError):
  """Work that was under way cannot go on: a full disk, say. The message is one line: what happened, what is left."""

  status = 1


class Stopped(RunError):
  """A run was told to stop, and has saved what it had. The status is what shells give a program killed by `signal`."""

  def __init__(self, message: str, signal: int):
    super().__init__(message)
    self.status = 128 + signal


def one_line(error: Exception) -> str:
  """What another library's exception says, in one line."""
  return ' '.join(str(error).split())
