"""Writes metrics and images of a run: to the terminal, JSON lines, and TensorBoard if tensorboardX is installed."""

import json
import math
import sys
import time
from pathlib import Path

import jax
import numpy as np

from focal_jax.files.outputs import write_whole


class Writer:
  """Writes scalars to `metrics.jsonl`, one line per call, and scalars and images to TensorBoard.

  Lines of an earlier run beyond `step` are dropped, because the resumed run writes them again.
  """

  def __init__(self, workdir: Path, step: int = 0):
    path = workdir / 'metrics.jsonl'
    if path.exists():
      write_whole(path, ''.join(f'{line}\n' for line in path.read_text().splitlines() if _is_of(line, step)))
    self._file = path.open('a')
    try:
      from tensorboardX import SummaryWriter  # optional
    except ImportError:
      self._board = None
    else:
      self._board = SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1)

  def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
    """Writes the scalars that are finite."""
    scalars = {name: value for name, value in scalars.items() if math.isfinite(value)}
    self._file.write(json.dumps({'step': step, **scalars}) + '\n')
    self._file.flush()
    if self._board is not None:
      for name, value in scalars.items():
        # TensorBoard has a section for each first part of a name.
        self._board.add_scalar(name if '/' in name else f'train/{name}', value, step)

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """`image` uint8 [H, W, 3]."""
    if self._board is not None:
      self._board.add_image(name, image, step, dataformats='HWC')

  def close(self) -> None:
    self._file.close()
    if self._board is not None:
      self._board.close()


def _is_of(line: str, step: int) -> bool:
  """Whether a line of metrics is complete and of a step up to this one."""
  try:
    return json.loads(line)['step'] <= step
  except (ValueError, KeyError, TypeError):
    return False


def memory_gb() -> dict[str, float]:
  """Peak memory of this process and of its first device, GB, where known."""
  memory = {}
  try:
    import resource
  except ImportError:  # Windows
    pass
  else:
    unit = 1 if sys.platform == 'darwin' else 1024  # bytes there, KiB elsewhere
    memory['host_memory_gb'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
  device = jax.local_devices()[0].memory_stats() or {}
  if 'peak_bytes_in_use' in device:
    memory['device_memory_gb'] = device['peak_bytes_in_use'] / 1e9
  return memory


class Progress:
  """Speed and remaining time of a run of `last` steps, from the steps since its creation."""

  def __init__(self, first: int, last: int):
    self._first, self._last, self._start = first, last, time.monotonic()
    self.resume(first)

  def resume(self, step: int) -> None:
    """Excludes the time since the last step, which was spent on something else."""
    self._step, self._time = step, time.monotonic()

  def seconds_per_step(self, step: int) -> float:
    """Mean seconds per step since the last call, or since `resume`."""
    now = time.monotonic()
    seconds = (now - self._time) / max(step - self._step, 1)
    self.resume(step)
    return max(seconds, 1e-9)

  def time_left(self, step: int) -> str:
    """Remaining time at the average speed so far."""
    return format_seconds((time.monotonic() - self._start) / max(step - self._first, 1) * (self._last - step))


def format_seconds(seconds: float) -> str:
  """1:02:03, or 2:03 below an hour."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
