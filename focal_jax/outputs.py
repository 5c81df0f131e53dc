"""Folders for results: complete or not there, and never over something that was there before."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from focal_jax.errors import InputError


def check_output(out: Path, overwrite: bool) -> None:
  """InputError if `out` is a file, or a folder that holds something and may not be written over."""
  if out.exists() and not out.is_dir():
    raise InputError(f'{out}: is a file, expected a folder for the results')
  if out.is_dir() and any(out.iterdir()) and not overwrite:
    raise InputError(f'{out}: already holds files; expected a new or empty folder, or --overwrite')


@contextlib.contextmanager
def result_folder(out: Path, overwrite: bool) -> Iterator[Path]:
  """A folder to write results into, which becomes `out` when the block ends well and vanishes when it fails.

  With `overwrite`, files of the same name in `out` are replaced and the others left alone.
  """
  check_output(out, overwrite)
  made = [folder for folder in (out, *out.parents) if not folder.exists()]
  out.mkdir(parents=True, exist_ok=True)
  staging = Path(tempfile.mkdtemp(prefix='.partial-', dir=out))
  try:
    yield staging
    for path in sorted(staging.rglob('*')):
      target = out / path.relative_to(staging)
      if path.is_dir():
        target.mkdir(exist_ok=True)
      else:
        path.replace(target)
  except BaseException:
    shutil.rmtree(staging)
    for folder in made:
      with contextlib.suppress(OSError):  # something else has put a file there
        folder.rmdir()
    raise
  shutil.rmtree(staging)
