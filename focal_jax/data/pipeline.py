"""Batches for training, on the host: crops of stacks from one or several sources, in an order that a restart repeats.

Knows grain. Frames stay uint8; photometric work is the device's (`augment`).
"""

import ctypes
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from focal_jax import warp
from focal_jax.data.sources import Source
from focal_jax.errors import InputError
from focal_jax.stack import FocalStack

_TRIES = 20  # random crops looked at before the one with most valid pixels is taken


@dataclasses.dataclass(frozen=True)
class BatchSettings:
  """What a batch is made of.

  Attributes:
    batch_size: stacks a step, over all devices and hosts.
    crop_px: side of the random square crops, a multiple of 32.
    min_valid: least share of pixels with a target in a crop.
    num_frames: least and greatest number of frames, drawn anew for each batch; None: all. The farthest and the nearest
      frame always stay, so that the targets remain within the focus range and the alignment's reference the same.
    seed: of order, crops and frames.
    num_threads: that read and crop. What comes out does not depend on it.
  """

  batch_size: int
  crop_px: int
  min_valid: float
  num_frames: tuple[int, int] | None = None
  seed: int = 0
  num_threads: int = 16


class Batches:
  """Endless batches, from the same seed always the same.

  Which examples make up a batch, and how each is cropped, follows from the seed and the number of the batch: not from
  restarts, threads, or on how many hosts and devices it is spread. An epoch of a source shows each example once.

  Attributes:
    with_motion: whether all sources know the true motion; else batches are without it.
  """

  def __init__(
    self,
    sources: Sequence[tuple[Source, float]],
    settings: BatchSettings,
    *,
    devices: int = 1,
    host: int = 0,
    hosts: int = 1,
  ):
    """Opens the pipeline; nothing is read yet but the first example of each source.

    Args:
      sources: and their weights, in proportion to which examples are drawn.
      devices: of this host.
      host: index of this host among `hosts`.

    Raises:
      InputError: settings that the sources cannot fill.
    """
    if settings.batch_size % (devices * hosts):
      raise InputError(
        f'batch_size is {settings.batch_size}, expected a multiple of the number of devices, {devices * hosts}'
      )
    self.with_motion = _check_sources([source for source, _ in sources], settings)
    self._devices, self._share = devices, settings.batch_size // hosts
    parts = [
      grain.MapDataset.source(source).seed(settings.seed + index).shuffle().repeat()
      for index, (source, _) in enumerate(sources)
    ]
    data = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, [weight for _, weight in sources])
    data = data.map_with_index(lambda index, example: prepare(example, index, settings))
    # Batches are put together behind the threads, which so work on examples, and none waits for another's.
    options = grain.ReadOptions(num_threads=settings.num_threads, prefetch_buffer_size=2 * settings.num_threads)
    self._data = data[host::hosts].to_iter_dataset(options).batch(self._share)

  def iterate(self, first_step: int = 0) -> Iterator[FocalStack]:
    """This host's share from batch `first_step` on, with an axis for its devices: [devices, stacks of each, ...]."""
    _keep_large_blocks()
    iterator = iter(self._data)
    iterator.set_state({'next_index': first_step * self._share})
    for batch in iterator:
      if not self.with_motion:
        del batch['motion']
      yield FocalStack(**{name: x.reshape(self._devices, -1, *x.shape[1:]) for name, x in batch.items()})


def prepare(example: dict[str, Any], index: int, settings: BatchSettings) -> dict[str, Any]:
  """The crop and frames of the example at place `index` of the order; arrays are copies."""
  if settings.num_frames:
    # One number for the whole batch, whose stacks must be of equal length.
    batch_rng = np.random.default_rng((settings.seed, 0, index // settings.batch_size))
    count = int(batch_rng.integers(*settings.num_frames, endpoint=True))
  rng = np.random.default_rng((settings.seed, 1, index))
  example = random_crop(example, settings.crop_px, settings.min_valid, rng)
  return random_frames(example, count, rng) if settings.num_frames else example


def random_crop(example: dict[str, Any], side: int, min_valid: float, rng: np.random.Generator) -> dict[str, Any]:
  """A random square crop of which at least `min_valid` has a target, or the best of the first 20 where none does.

  The true motion follows: zoom about the frame's centre is zoom about the crop's and a shift.
  """
  height, width = example['target'].shape
  best, best_share = (0, 0), -1.0
  for _ in range(_TRIES):
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    share = np.mean(example['valid'][top : top + side, left : left + side] > 0)
    if share > best_share:
      best, best_share = (top, left), share
    if share >= min_valid:
      break
  top, left = best
  window = np.s_[top : top + side, left : left + side]
  return {
    'images': np.ascontiguousarray(example['images'][:, *window]),
    'focus': example['focus'],
    'fov': example['fov'],
    'motion': warp.motion_of_crop(example['motion'], example['fov'], (height, width), best, side),
    'target': np.ascontiguousarray(example['target'][window]),
    'valid': np.ascontiguousarray(example['valid'][window]),
  }


def random_frames(example: dict[str, Any], count: int, rng: np.random.Generator) -> dict[str, Any]:
  """The first, the last and as many random frames between them as make `count`, in order."""
  total = len(example['focus'])
  between = 1 + rng.choice(total - 2, count - 2, replace=False)
  chosen = np.sort(np.concatenate([[0], between, [total - 1]])).astype(int)
  return example | {name: example[name][chosen] for name in ('images', 'focus', 'fov', 'motion')}


def _check_sources(sources: Sequence[Source], settings: BatchSettings) -> bool:
  """Whether all sources know the motion; InputError unless they can fill equal batches."""
  firsts = [source[0] for source in sources]
  side = min(min(example['images'].shape[1:3]) for example in firsts)
  if settings.crop_px > side or settings.crop_px % 32:
    raise InputError(f"data.crop_px is {settings.crop_px}, expected a multiple of 32, at most the frames' {side} px")
  counts = [len(example['focus']) for example in firsts]
  if min(counts) < 2:
    raise InputError('data.source has stacks of one frame, expected at least two: an RGB-D set is for the simulator')
  if settings.num_frames is None:
    if len(set(counts)) > 1:
      raise InputError(f'data.source has stacks of {counts} frames; expected data.num_frames to make them equal')
  else:
    low, high = settings.num_frames
    if not 2 <= low <= high <= min(counts):
      raise InputError(
        f"data.num_frames is {(low, high)}, expected 2 <= least <= greatest <= the sources' {min(counts)}"
      )
  return all(np.isfinite(example['motion']).all() for example in firsts)


def _keep_large_blocks() -> None:
  """Tells glibc's allocator to keep blocks of the size of a stack, which doubles the speed of reading.

  By default it maps and unmaps each of them, and the kernel clears its pages every time. Elsewhere nothing happens.
  """
  m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError, TypeError):
    return
  mallopt(m_mmap_threshold, 1 << 30)
  mallopt(m_trim_threshold, 2**31 - 1)
