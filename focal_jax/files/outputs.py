"""Output folders: written completely or not at all, and never over existing files."""

import contextlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from focal_jax.data.names import printable
from focal_jax.errors import InputError, RunError, disk_full

PARTIAL = '.partial'  # suffix of files while they are written


def write_whole(path: Path, text: str) -> None:
  """Writes a file atomically: readers find the old or the complete new content, even if the program is killed."""
  partial = path.with_name(path.name + PARTIAL)
  partial.write_text(text, encoding='utf-8')
  partial.replace(path)


def check_output(out: Path, overwrite: bool) -> None:
  """Raises InputError if `out` is a file, cannot be created or written to, or is a non-empty folder without
  `overwrite`. Call it before hours of work.
  """
  try:
    if out.exists() and not out.is_dir():
      raise InputError(f'{out}: is a file, expected a folder for the results')
    if out.is_dir() and any(out.iterdir()) and not overwrite:
      raise InputError(f'{out}: already holds files; expected a new or empty folder, or --overwrite')
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
  except OSError as error:  # a name too long
    raise InputError(
      f'{printable(out)}: cannot be written to ({error.strerror}), expected a writable folder'
    ) from error
  try:
    tempfile.TemporaryFile(dir=there).close()  # permissions do not tell for network folders and special file systems
  except OSError as error:
    raise InputError(
      f'{printable(out)}: cannot be written to because {printable(there)} cannot be ({error.strerror}), expected a '
      'writable folder'
    ) from error


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
  """A temporary folder inside `folder`, which is created if necessary. The temporary folder is removed at the end, as
  are created folders that are still empty.

  Raises:
    InputError: `folder` cannot be created or written to.
    RunError: the disk is full.
  """
  made = [path for path in (folder, *folder.parents) if not path.exists()]  # the deepest first
  try:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      stage = Path(tempfile.mkdtemp(prefix='incomplete.', dir=folder))
    except OSError as error:
      raise InputError(f'{folder}: cannot be written to ({error.strerror}), expected a writable folder') from error
    try:
      yield stage
    except OSError as error:
      if (reason := disk_full(error)) is None:
        raise
      raise RunError(f'{folder}: cannot be written ({reason}); nothing was changed there') from error
    finally:
      shutil.rmtree(stage)
  finally:
    for path in made:
      with contextlib.suppress(OSError):  # not empty
        path.rmdir()


@contextlib.contextmanager
def result_folder(out: Path, overwrite: bool) -> Iterator[Path]:
  """A folder to write results into: they appear in `out` when the block succeeds, and are discarded when it fails.

  With `overwrite`, files of the same name in `out` are replaced and the others kept.
  """
  check_output(out, overwrite)
  with staging(out) as stage:
    yield stage
    paths = sorted(stage.rglob('*'))
    for path in paths:  # before any is moved
      target = out / path.relative_to(stage)
      if target.exists() and target.is_dir() != path.is_dir():
        there, wanted = ('folder', 'file') if target.is_dir() else ('file', 'folder')
        raise InputError(f'{target}: is a {there}, expected a {wanted} or nothing')
    with _signals_postponed():
      for path in paths:
        target = out / path.relative_to(stage)
        if path.is_dir():
          target.mkdir(exist_ok=True)
        else:
          path.replace(target)


@contextlib.contextmanager
def _signals_postponed() -> Iterator[None]:
  """Postpones SIGINT and SIGTERM to the end of the block, which must be short."""
  if threading.current_thread() is not threading.main_thread():  # others are not interrupted
    yield
    return
  received = []
  numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not None]
  handlers = {number: signal.signal(number, lambda number, _: received.append(number)) for number in numbers}
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
    if received:
      signal.raise_signal(received[0])
