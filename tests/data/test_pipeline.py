"""Crops and order of training batches, on a small source made here."""

import itertools

import numpy as np
import pytest
from absl import flags

from focal_jax.data.pipeline import random_crop, training_batches
from focal_jax.errors import InputError

flags.FLAGS.mark_as_parsed()  # grain reads absl flags


def example(index, height=48, width=64):
  """Pixels, target and valid mask that tell where they come from."""
  rows, columns = np.mgrid[:height, :width]
  images = np.stack([rows, columns, np.full_like(rows, index)], -1).astype(np.uint8)
  return {
    'images': np.stack([images, images]),
    'focus': np.array([0.0, 1.0], np.float32),
    'fov': np.ones(2, np.float32),
    'target': (1000 * index + 100 * rows + columns).astype(np.float32),
    'valid': (columns >= 20).astype(np.float32),
    'name': str(index),
  }


SOURCE = [example(index) for index in range(5)]


def batches(first_step, count, **changes):
  settings = {'devices': 1, 'batch_size': 2, 'crop_px': 32, 'min_valid': 0.8, 'seed': 7, 'first_step': first_step}
  return list(itertools.islice(training_batches(SOURCE, **settings | changes), count))


def test_crop_moves_images_target_and_valid_together():
  for seed in range(20):
    crop = random_crop(SOURCE[3], 32, 0.5, np.random.default_rng(seed))
    rows, columns, index = np.moveaxis(crop['images'][0].astype(np.float32), -1, 0)
    np.testing.assert_array_equal(crop['target'], 1000 * index + 100 * rows + columns)
    np.testing.assert_array_equal(crop['valid'], columns >= 20)
    assert crop['valid'].mean() >= 0.5


def test_crop_takes_the_best_where_none_is_good_enough():
  crop = random_crop(SOURCE[0], 48, 0.99, np.random.default_rng(0))
  assert crop['valid'].mean() > 0.6  # of 28 / 48 .. 44 / 48 to be had, the best of 20 draws


def test_shapes_types_and_devices():
  (batch,) = batches(0, 1, devices=2, batch_size=4)
  assert batch.images.shape == (2, 2, 2, 32, 32, 3)
  assert batch.images.dtype == np.uint8
  assert batch.target.shape == batch.valid.shape == (2, 2, 32, 32)
  assert batch.focus.shape == (2, 2, 2)


def test_resumed_order_is_the_order():
  straight = batches(0, 6)
  resumed = batches(4, 2)
  for a, b in zip(straight[4:], resumed, strict=True):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.target, b.target)


def test_each_epoch_sees_every_example_once():
  seen = [int(image[0, 0, 0, 2]) for batch in batches(0, 5) for image in batch.images[0]]
  assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
  assert seen[:5] != seen[5:]


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'devices': 2, 'batch_size': 3}, 'batch_size is 3'),
    ({'crop_px': 64}, r"data\.crop_px is 64, .*at most the frames' 48 px"),
    ({'crop_px': 40}, r'data\.crop_px is 40, expected a multiple of 32'),
  ],
)
def test_bad_settings(changes, message):
  with pytest.raises(InputError, match=message):
    batches(0, 1, **changes)
