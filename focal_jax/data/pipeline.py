"""Batches for training, on the host: random crops of a data set's stacks, in an order that a restart repeats. Knows
grain.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from focal_jax.errors import InputError
from focal_jax.stack import FocalStack

_TRIES = 20  # random crops looked at before the one with most valid pixels is taken


def training_batches(
  source: Sequence[dict[str, Any]],
  *,
  devices: int,
  batch_size: int,
  crop_px: int,
  min_valid: float,
  seed: int,
  first_step: int,
) -> Iterator[FocalStack]:
  """Endless batches from `first_step` on, images uint8, with a leading device axis: [devices, batch / devices, ...].

  Each example is shuffled, cropped and ordered by the seed alone, so that a resumed run sees what it would have seen.
  """
  if batch_size % devices:
    raise InputError(f'batch_size is {batch_size}, expected a multiple of the number of devices, {devices}')
  side = min(source[0]['images'].shape[1:3])
  if crop_px > side or crop_px % 32:
    raise InputError(f"data.crop_px is {crop_px}, expected a multiple of 32, at most the frames' {side} px")

  def crop(example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return random_crop(example, crop_px, min_valid, rng)

  data = grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(crop).batch(batch_size)
  iterator = iter(data.to_iter_dataset(grain.ReadOptions(num_threads=4)))
  iterator.set_state({'next_index': first_step})
  for batch in iterator:
    yield FocalStack(
      **{name: value.reshape(devices, batch_size // devices, *value.shape[1:]) for name, value in batch.items()}
    )


def random_crop(example: dict[str, Any], side: int, min_valid: float, rng: np.random.Generator) -> dict[str, Any]:
  """A random square crop whose valid share is at least `min_valid`, or the best of the first 20 where none is."""
  height, width = example['target'].shape
  best, best_share = None, -1.0
  for _ in range(_TRIES):
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    window = np.s_[top : top + side, left : left + side]
    share = float(np.mean(example['valid'][window]))
    if share > best_share:
      best, best_share = window, share
    if share >= min_valid:
      break
  return {
    'images': example['images'][:, best[0], best[1]],
    'focus': example['focus'],
    'fov': example['fov'],
    'target': example['target'][best],
    'valid': example['valid'][best],
  }
