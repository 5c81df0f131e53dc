"""Estimates the memory that a prediction needs, so that one that would run out of it is refused before it starts."""

import math
from pathlib import Path

from focal_jax.errors import InputError
from focal_jax.prediction.tiles import FRAMES_PX, PIECE_BYTES, tile_sides

GIB = 2**30
_PROCESS_BYTES = GIB // 2  # Python, JAX and compiled programs
_MEMINFO = Path('/proc/meminfo')
# Per pixel of each frame: the frame as read, and the results that are kept in float16.
_FRAME_BYTES, _ALIGNED_BYTES, _WEIGHT_BYTES = 3, 8, 2


def needed_bytes(frames: int, size: tuple[int, int], *, network: bool, tile_px: int | None = None) -> int:
  """Estimate of the memory for a prediction on a CPU, bytes.

  Args:
    frames: number of frames.
    size: height and width at which depth is computed, px.
    network: whether a network computes depth, instead of the classical method.
    tile_px: as in `Predictor.predict`.
  """
  pixels = frames * math.prod(size)
  whole = pixels * (_FRAME_BYTES + _ALIGNED_BYTES)
  if not network:
    return _PROCESS_BYTES + whole
  piece = pixels
  if pixels > FRAMES_PX or tile_px:
    sides, _ = tile_sides(tile_px, None, frames, size)
    piece = min(pixels, frames * math.prod(sides))
  return _PROCESS_BYTES + whole + pixels * _WEIGHT_BYTES + piece * PIECE_BYTES


def free_bytes() -> int | None:
  """Available memory and swap, bytes; None: unknown on this system."""
  try:
    lines = dict(line.split(':', 1) for line in _MEMINFO.read_text().splitlines() if ':' in line)
    return sum(int(lines[name].split()[0]) * 1024 for name in ('MemAvailable', 'SwapFree'))
  except (OSError, KeyError, ValueError, IndexError):
    return None


def check_memory(frames: int, size: tuple[int, int], *, network: bool, tile_px: int | None = None) -> None:
  """Checks that there is enough memory for a prediction; arguments as for `needed_bytes`.

  Raises:
    InputError: more memory is needed than is available.
  """
  needed, free = needed_bytes(frames, size, network=network, tile_px=tile_px), free_bytes()
  if free is None or needed <= free:
    return
  advice = 'a smaller depth_side, or fewer frames'
  if network:
    classical = needed_bytes(frames, size, network=False)
    advice += f', or the classical method ({classical / GIB:.1f} GiB)'
  raise InputError(
    f'{frames} frames of {size[1]} x {size[0]} px need about {needed / GIB:.1f} GiB of memory, but only '
    f'{free / GIB:.1f} GiB are available; use {advice}'
  )
