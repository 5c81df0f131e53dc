"""Estimates the memory that a prediction needs, so that one that would run out of it is refused before it starts."""

import math
from collections.abc import Iterator
from pathlib import Path

from focal_jax.errors import InputError
from focal_jax.prediction.tiles import FRAMES_PX, PIECE_BYTES, tile_sides

GIB = 2**30
_PROCESS_BYTES = GIB // 2  # Python, JAX and compiled programs
_MEMINFO = Path('/proc/meminfo')
# Limits of containers and batch jobs: control groups, version 1 or 2. Files with the limit and the use; the caches that
# the kernel would give back for programs are counted as used.
_CGROUPS, _OWN_CGROUPS = Path('/sys/fs/cgroup'), Path('/proc/self/cgroup')
_LIMIT_FILES = (
  ('memory.max', 'memory.current', 'inactive_file'),
  ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
)
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
  """Available memory and swap, bytes, within the limits of a container; None: unknown on this system."""
  try:
    memory, swap = (_value(_MEMINFO, name) * 1024 for name in ('MemAvailable:', 'SwapFree:'))
  except (OSError, KeyError, ValueError):
    return None
  return min([memory, *_free_in_cgroups()]) + swap


def _free_in_cgroups() -> Iterator[int]:
  """Bytes below the limit of each control group that this process is in, if it has a limit."""
  for folder in _own_cgroups():
    for limit, used, cache in _LIMIT_FILES:
      try:
        most, use = (int((folder / name).read_text()) for name in (limit, used))
        yield max(0, most - use + _value(folder / 'memory.stat', cache))
      except (OSError, KeyError, ValueError):  # of the other version; the root group; or 'max': no limit
        continue


def _own_cgroups() -> Iterator[Path]:
  """Folders of the control groups for memory that this process is in."""
  try:
    lines = _OWN_CGROUPS.read_text().splitlines()
  except OSError:
    return
  for line in lines:
    controllers, separator, path = line.partition(':')[2].partition(':')
    if not separator or (controllers and 'memory' not in controllers.split(',')):
      continue
    root = _CGROUPS / 'memory' if controllers else _CGROUPS
    # The limits of all groups above count, too. A container may see its own group as the root, whatever its path is.
    folder = root / path.lstrip('/')
    yield from (one for one in (folder, *folder.parents) if one.is_relative_to(root))


def _value(path: Path, name: str) -> int:
  """The number after a name in a file of names and numbers."""
  lines = (line.split() for line in path.read_text().splitlines())
  return int({line[0]: line[1] for line in lines if len(line) > 1}[name])


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
