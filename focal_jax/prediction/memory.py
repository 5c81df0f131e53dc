"""How much memory a prediction takes, so that one that cannot end is refused before it begins."""

import math
from pathlib import Path

from focal_jax.errors import InputError
from focal_jax.prediction.tiles import FRAMES_PX, PIECE_BYTES, tile_sides

GIB = 2**30
_PROCESS_BYTES = GIB // 2  # of Python, JAX and what is compiled
_MEMINFO = Path('/proc/meminfo')
# Of each pixel of each frame: what was read, and what is kept of the result in float16.
_FRAME_BYTES, _ALIGNED_BYTES, _WEIGHT_BYTES = 3, 8, 2


def needed_bytes(frames: int, size: tuple[int, int], *, network: bool, tile_px: int | None = None) -> int:
  """Of a prediction on a CPU, about.

  Args:
    frames: how many there are.
    size: height and width of the frames in which depth is computed.
    network: by a network; else classical.
    tile_px: as of `Predictor.predict`.
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
  """Memory and swap that are free; None: the system does not tell."""
  try:
    lines = dict(line.split(':', 1) for line in _MEMINFO.read_text().splitlines() if ':' in line)
    return sum(int(lines[name].split()[0]) * 1024 for name in ('MemAvailable', 'SwapFree'))
  except (OSError, KeyError, ValueError, IndexError):
    return None


def check_memory(frames: int, size: tuple[int, int], *, network: bool, tile_px: int | None = None) -> None:
  """Raises InputError, saying how much is needed, if that is not free."""
  needed, free = needed_bytes(frames, size, network=network, tile_px=tile_px), free_bytes()
  if free is None or needed <= free:
    return
  advice = 'a smaller depth_side, or fewer frames'
  if network:
    classical = needed_bytes(frames, size, network=False)
    advice += f', or the classical method ({classical / GIB:.1f} GiB)'
  raise InputError(
    f'{frames} frames of {size[1]} x {size[0]} px need about {needed / GIB:.1f} GiB of memory, of which '
    f'{free / GIB:.1f} are free: expected {advice}'
  )
