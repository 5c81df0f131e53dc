"""Where a run's numbers and pictures go: the terminal, JSON lines, and TensorBoard where tensorboardX is installed."""

import json
import logging
import time
from pathlib import Path

import absl.logging
import numpy as np


def show_progress() -> None:
  """Logs what this project says, and of others warnings only: Orbax alone writes some twenty lines a checkpoint."""
  absl.logging.set_verbosity(absl.logging.WARNING)
  logging.getLogger('focal_jax').setLevel(logging.INFO)


class Writer:
  """Scalars to `metrics.jsonl`, one line a call; scalars and pictures to TensorBoard."""

  def __init__(self, workdir: Path):
    self._file = (workdir / 'metrics.jsonl').open('a')
    try:
      from tensorboardX import SummaryWriter  # optional
    except ImportError:
      self._board = None
    else:
      self._board = SummaryWriter(str(workdir / 'tensorboard'))

  def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
    self._file.write(json.dumps({'step': step, **scalars}) + '\n')
    self._file.flush()
    if self._board is not None:
      for name, value in scalars.items():
        self._board.add_scalar(name, value, step)

  def write_image(self, step: int, name: str, image: np.ndarray) -> None:
    """`image` uint8 [H, W, 3]."""
    if self._board is not None:
      self._board.add_image(name, image, step, dataformats='HWC')

  def close(self) -> None:
    self._file.close()
    if self._board is not None:
      self._board.close()


class Progress:
  """Speed and time left of a run of `last` steps, from the steps since it was made."""

  def __init__(self, first: int, last: int):
    self._first, self._last, self._start = first, last, time.monotonic()

  def seconds_a_step(self, step: int) -> float:
    return (time.monotonic() - self._start) / max(step - self._first, 1)

  def time_left(self, step: int) -> str:
    return format_seconds(self.seconds_a_step(step) * (self._last - step))


def format_seconds(seconds: float) -> str:
  """1:02:03, or 2:03 below an hour."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}' if hours else f'{minutes}:{seconds:02}'
