"""Order, crops and frames of training batches, on small sources and photographs made here."""

import itertools
import time

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags

from focal_jax import warp
from focal_jax.data.pipeline import (
  BatchSettings,
  crop_photograph,
  crop_scene,
  motion_known,
  random_crop,
  random_frames,
  raytraced_batches,
  rgbd_batches,
  stack_batches,
)
from focal_jax.errors import InputError

flags.FLAGS.mark_as_parsed()  # grain reads absl flags


def example(index, height=48, width=64, frames=2):
  """Pixels, target and valid mask encode their place; frame n has focus n and brightness n."""
  rows, columns = np.mgrid[:height, :width]
  images = np.stack([rows, columns, np.full_like(rows, index)], -1).astype(np.uint8)
  focus = np.arange(frames, dtype=np.float32)
  return {
    'images': np.stack([images + np.uint8(20 * n) for n in range(frames)]),
    'focus': focus,
    'fov': 1.1 - 0.01 * focus,
    'motion': np.zeros((frames, 3), np.float32),
    'target': (1000 * index + 100 * rows + columns).astype(np.float32),
    'valid': (columns >= 20).astype(np.float32),
    'all_in_focus': np.zeros((1, 1, 3), np.uint8),
    'name': str(index),
  }


SOURCE = [example(index) for index in range(5)]


class Slow(list):
  """A source whose examples take different times to read, so that threads overtake each other."""

  def __getitem__(self, index):
    time.sleep(0.002 * (7 * index % 5))
    return super().__getitem__(index)


def batches(first_step, count, sources=((SOURCE, 1.0),), **changes):
  hosts = {name: changes.pop(name) for name in ('devices', 'host', 'hosts') if name in changes}
  settings = BatchSettings(**{'batch_size': 2, 'crop_px': 32, 'min_valid': 0.8, 'seed': 7} | changes)
  return list(itertools.islice(stack_batches(sources, settings, **hosts).iterate(first_step), count))


def assert_same(a, b):
  for name in ('images', 'focus', 'fov', 'motion', 'target', 'valid'):
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def indices(found):
  """Number of the example that each stack of these batches comes from, batch by batch."""
  return [int(index) for batch in found for index in batch.images[..., 0, 0, 0, 2].ravel()]


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


def test_a_confidence_counts_as_a_target():
  low = SOURCE[0] | {'valid': 0.1 * SOURCE[0]['valid']}
  a, b = (random_crop(x, 32, 0.8, np.random.default_rng(1)) for x in (SOURCE[0], low))
  np.testing.assert_array_equal(a['target'], b['target'])


@pytest.mark.parametrize('size', [(48, 64), (47, 65)], ids=['even', 'odd'])
def test_the_motion_follows_the_crop(size):
  """Cropped and then aligned is aligned and then cropped, by `warp` itself, away from the borders."""
  rng = np.random.default_rng(0)
  rows, columns = np.mgrid[: size[0], : size[1]]
  picture = np.sin(0.3 * rows) + np.cos(0.23 * columns) + 2
  images = np.broadcast_to(picture[None, ..., None], (3, *picture.shape, 3)).astype(np.float32)
  fov = np.array([1.06, 1.03, 1.0], np.float32)
  motion = np.array([[0.02, 1.5, -0.7], [-0.03, -2.1, 0.4], [0.01, 0.3, 0.2]], np.float32)
  stack = example(0, *size, frames=3) | {'images': images, 'fov': fov, 'motion': motion}
  whole = np.asarray(warp.warp(jnp.asarray(images), jnp.asarray(fov), jnp.asarray(motion)))
  for _ in range(5):
    crop = random_crop(stack, 32, 0.0, rng)
    top, left = (int(x) for x in np.divmod(crop['target'][0, 0], 100))
    aligned = np.asarray(warp.warp(*(jnp.asarray(crop[name]) for name in ('images', 'fov', 'motion'))))
    inside = np.s_[:, 6:-6, 6:-6]
    expected = whole[:, top : top + 32, left : left + 32][inside]
    np.testing.assert_allclose(aligned[inside], expected, atol=0.02)  # of 4; unmoved frames are off by 0.5


def test_chosen_frames_keep_ends_order_and_coordinates():
  seen = set()
  for seed in range(40):
    chosen = random_frames(example(1, frames=6), 4, np.random.default_rng(seed))
    focus = chosen['focus'].astype(int)
    assert focus[0] == 0
    assert focus[-1] == 5
    assert np.all(np.diff(focus) > 0)
    np.testing.assert_array_equal(chosen['images'][:, 0, 0, 0], (20 * focus).astype(np.uint8))
    np.testing.assert_array_equal(chosen['fov'], 1.1 - 0.01 * chosen['focus'])
    assert chosen['motion'].shape == (4, 3)
    seen.add(tuple(focus))
  assert len(seen) == 6  # all there are


def test_each_batch_has_a_number_of_frames_of_its_own():
  source = [example(index, frames=6) for index in range(5)]
  found = batches(0, 12, [(source, 1.0)], num_frames=(2, 4))
  assert {batch.focus.shape[-1] for batch in found} == {2, 3, 4}
  for batch in found:
    assert batch.images.shape[:3] == (1, 2, batch.focus.shape[-1])
  again = batches(5, 2, [(source, 1.0)], num_frames=(2, 4))
  for a, b in zip(found[5:], again, strict=False):
    assert_same(a, b)


def test_shapes_types_and_devices():
  (batch,) = batches(0, 1, devices=2, batch_size=4)
  assert batch.images.shape == (2, 2, 2, 32, 32, 3)
  assert batch.images.dtype == np.uint8
  assert batch.target.shape == batch.valid.shape == (2, 2, 32, 32)
  assert batch.focus.shape == (2, 2, 2)
  assert batch.motion.shape == (2, 2, 2, 3)


def test_the_order_is_the_same_after_a_restart_and_with_any_number_of_threads():
  slow = [(Slow(SOURCE), 1.0)]
  straight = batches(0, 12, slow, num_threads=1)
  for threads in (1, 3, 16):
    for first in (0, 5):
      resumed = batches(first, 4, slow, num_threads=threads)
      for a, b in zip(straight[first:], resumed, strict=False):
        assert_same(a, b)


def test_hosts_share_the_batches_of_one():
  whole = batches(3, 4, batch_size=4, num_frames=(2, 2))
  halves = [batches(3, 4, batch_size=4, num_frames=(2, 2), host=host, hosts=2) for host in (0, 1)]
  for batch, *parts in zip(whole, *halves, strict=True):
    for host, part in enumerate(parts):
      np.testing.assert_array_equal(part.images, batch.images[:, host::2])
      np.testing.assert_array_equal(part.target, batch.target[:, host::2])


def test_each_epoch_sees_every_example_once():
  seen = indices(batches(0, 5))
  assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
  assert seen[:5] != seen[5:]


def test_sources_are_mixed_in_proportion():
  other = [example(index, height=40, width=40, frames=3) for index in range(10, 17)]
  found = indices(batches(0, 50, [(SOURCE, 3.0), (other, 1.0)], num_frames=(2, 2)))
  assert sum(index < 10 for index in found) == 75
  assert set(found) == {0, 1, 2, 3, 4, *range(10, 17)}


def test_motion_is_left_out_where_a_source_does_not_know_it():
  unknown = [x | {'motion': np.full((2, 3), np.nan, np.float32)} for x in SOURCE]
  (batch,) = batches(0, 1, [(SOURCE, 1.0), (unknown, 1.0)])
  assert batch.motion is None
  assert motion_known([SOURCE])
  assert not motion_known([SOURCE, unknown])


def test_all_in_focus_images_are_cropped_with_the_target_if_asked_for():
  sharp = [x | {'all_in_focus': x['images'][0] + np.uint8(7)} for x in SOURCE]
  (batch,) = batches(0, 1, [(sharp, 1.0)], all_in_focus=True)
  np.testing.assert_array_equal(batch.all_in_focus, batch.images[:, :, 0] + np.uint8(7))
  for sources, asked in ([[(sharp, 1.0)], False], [[(sharp, 1.0), (SOURCE, 1.0)], True]):
    (batch,) = batches(0, 1, sources, all_in_focus=asked)
    assert batch.all_in_focus is None


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'devices': 2, 'batch_size': 3}, 'batch_size is 3, expected a multiple of the number of devices, 2'),
    ({'devices': 2, 'hosts': 2, 'batch_size': 6}, 'batch_size is 6, expected a multiple of the number of devices, 4'),
    ({'crop_px': 64}, r"data\.crop_px is 64, .*at most the frames' 48 px"),
    ({'crop_px': 40}, r'data\.crop_px is 40, expected a multiple of 32'),
    ({'num_frames': (1, 2)}, r"data\.num_frames is \(1, 2\), expected 2 <= minimum <= maximum <= the sources' 2"),
    ({'num_frames': (2, 3)}, r'data\.num_frames is \(2, 3\)'),
    (
      {'sources': [(SOURCE, 1.0), ([example(0, frames=3)], 1.0)]},
      r'stacks of \[2, 3\] frames; expected data\.num_frames',
    ),
    ({'sources': [([example(0, frames=1)], 1.0)]}, 'stacks of one frame, expected at least two'),
  ],
)
def test_bad_settings(changes, message):
  with pytest.raises(InputError, match=message):
    batches(0, 1, **changes)


CANVAS = (32, 40)


def photograph(index=0, height=48, width=64):
  """Colour tells the place, in steps of 1/3 px, and depth too."""
  rows, columns = np.mgrid[:height, :width]
  rgb = np.stack([3 * rows, 3 * columns, np.full_like(rows, index)], -1).astype(np.uint8)
  return {'rgb': rgb, 'depth_m': (1 + rows + 1000 * columns).astype(np.float32), 'name': f'photo_{index}'}


PHOTOGRAPHS = [photograph(0), photograph(1, 60, 50), photograph(2, 40, 80), photograph(3, 24, 36)]


def rgbd(first_step, count, source=PHOTOGRAPHS, **order):
  return list(
    itertools.islice(rgbd_batches(source, CANVAS, **{'batch_size': 4, 'seed': 7} | order).iterate(first_step), count)
  )


def assert_same_photographs(a, b):
  for name in ('rgb', 'depth_m'):
    np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize(
  ('size', 'cover'), [((48, 64), 2 / 3), ((60, 41), 40 / 41), ((24, 40), 4 / 3), (CANVAS, 1.0)], ids=str
)
def test_colour_and_depth_of_a_photograph_stay_in_register(size, cover):
  whole = photograph(5, *size)
  scales, mirrored, corners = [], [], []
  for seed in range(40):
    crop = crop_photograph(whole, CANVAS, np.random.default_rng(seed))
    assert crop['rgb'].shape == (*CANVAS, 3)
    columns, rows = np.divmod(crop['depth_m'] - 1, 1000)
    # A pixel's depth is that of the nearest, at most half a pixel away; colour near the photograph's border is bent.
    for place, colour, end in ((rows, crop['rgb'][..., 0], size[0]), (columns, crop['rgb'][..., 1], size[1])):
      inside = (place >= 3) & (place < end - 3)
      np.testing.assert_array_less(np.abs(place - colour / 3.0)[inside], 0.8)
    assert np.all(crop['rgb'][..., 2] == 5)
    assert np.all(np.diff(rows, axis=0) >= 0)
    step = np.diff(columns[0])
    assert np.all(step >= 0) or np.all(step <= 0)
    mirrored.append(columns[0, 0] > columns[0, -1])
    corners.append((rows.min(), columns.min()))
    # The slopes of both directions, which are equal.
    down, along = ((x[-1] - x[0]) / (len(x) - 1) for x in (rows[:, 0], np.sort(columns[0])))
    np.testing.assert_allclose(down, along, atol=0.06)
    scales.append(1 / along)
  assert 8 < sum(mirrored) < 32
  low, high = cover, max(cover, 1.0)
  tolerance = 0.05 + 0.1 * (high - low)
  assert low - 0.05 < min(scales) < low + tolerance
  assert high - tolerance < max(scales) < high + 0.05
  assert len(set(corners)) == 1 if size == CANVAS else len(set(corners)) > 5


def test_a_photograph_of_the_canvas_is_kept_as_it_is():
  whole = photograph(1, *CANVAS)
  crop = crop_photograph(whole, CANVAS, np.random.default_rng(0))
  step = 1 if crop['depth_m'][0, 0] == 1 else -1
  assert_same_photographs(crop, {name: whole[name][:, ::step] for name in ('rgb', 'depth_m')})


def test_crops_of_photographs_hold_known_depth():
  whole = photograph(height=48, width=200)
  whole['depth_m'][:, 60:] = 0
  shares = [np.mean(crop_photograph(whole, CANVAS, np.random.default_rng(s))['depth_m'] > 0) for s in range(20)]
  assert min(shares) >= 0.5  # one in three draws has as much
  whole['depth_m'][:, 10:] = 0
  shares = [np.mean(crop_photograph(whole, CANVAS, np.random.default_rng(s))['depth_m'] > 0) for s in range(20)]
  assert 0 < np.mean(shares) < 0.5  # the best of what there is


def test_photographs_without_depth_are_named():
  empty = photograph(9)
  empty['depth_m'][:] = 0
  with pytest.raises(InputError, match="photograph 'photo_9': found no pixel with known depth") as caught:
    rgbd(0, 3, [*PHOTOGRAPHS, empty])
  assert '\n' not in str(caught.value)


def test_batches_of_photographs():
  (batch,) = rgbd(0, 1, devices=2)
  assert batch.keys() == {'rgb', 'depth_m'}
  assert batch['rgb'].shape == (2, 2, *CANVAS, 3)
  assert batch['depth_m'].shape == (2, 2, *CANVAS)
  assert (batch['rgb'].dtype, batch['depth_m'].dtype) == (np.uint8, np.float32)
  assert sorted(batch['rgb'][..., 0, 0, 2].ravel()) == [0, 1, 2, 3]  # an epoch
  with pytest.raises(InputError, match='batch_size is 4, expected a multiple of the number of devices, 3'):
    rgbd(0, 1, devices=3)


def test_photographs_come_in_the_same_order_after_a_restart_and_with_any_number_of_threads():
  straight = rgbd(0, 8, Slow(PHOTOGRAPHS), num_threads=1)
  assert not np.array_equal(straight[0]['depth_m'], straight[1]['depth_m'])
  for threads in (1, 16):
    for first in (0, 5):
      for a, b in zip(straight[first:], rgbd(first, 3, Slow(PHOTOGRAPHS), num_threads=threads), strict=False):
        assert_same_photographs(a, b)
  assert not np.array_equal(rgbd(0, 1, seed=8)[0]['depth_m'], straight[0]['depth_m'])


def test_hosts_share_photographs():
  whole = rgbd(3, 4)
  halves = [rgbd(3, 4, host=host, hosts=2) for host in (0, 1)]
  for batch, *parts in zip(whole, *halves, strict=True):
    for host, part in enumerate(parts):
      assert_same_photographs(part, {name: x[:, host::2] for name, x in batch.items()})


def test_crops_of_ray_traced_scenes_keep_light_and_depth_in_register():
  rows, columns = np.mgrid[:12, :10].astype(np.float32)
  depth = 100 + 10 * rows + columns
  focus = np.array([[50, 100, 250], [40, 120, 240]], np.float32)
  light = (depth[..., None].repeat(3, -1) * focus[..., None, None, None]).astype(np.float32)
  scene = {'light': light, 'focus': focus, 'inverse_depth': depth, 'name': 'scene'}
  crops = [crop_scene(scene, 8, np.random.default_rng(seed)) for seed in range(100)]
  for crop in crops:
    expected = crop['inverse_depth'] * crop['focus'][:, None, None]
    np.testing.assert_allclose(crop['light'][..., 1], expected, rtol=1e-3)
  assert {float(crop['focus'][0]) for crop in crops} == {40, 50}
  steps = {tuple(float(np.diff(c['inverse_depth'][:2, :2], axis=a)[0, 0]) for a in (0, 1)) for c in crops}
  assert steps == {(a, b) for x, y in ((1, 10), (10, 1)) for a in (x, -x) for b in (y, -y)}
  corners = {float(crop['inverse_depth'].min()) for crop in crops}
  assert corners == {100 + 10 * row + column for row in range(5) for column in range(3)}
  with pytest.raises(InputError, match="scene 'scene': is 10 x 12 px, expected at least the frames, 11 px"):
    crop_scene(scene, 11, np.random.default_rng(0))


def test_crops_of_ray_traced_scenes_lie_within_the_sweep():
  depth = np.full((8, 40), 1.0, np.float32)
  depth[:, 24:] = 3.0
  scene = {'light': np.zeros((2, 2, 8, 40, 3), np.float16), 'inverse_depth': depth, 'name': 'scene'}
  scene['focus'] = np.array([[2, 4], [10, 11]], np.float32)  # the second sweep sees nothing
  for seed in range(20):
    crop = crop_scene(scene, 8, np.random.default_rng(seed))
    assert np.mean(crop['inverse_depth'] == 3) >= 0.5
    assert crop['focus'][0] == 2


def test_scenes_with_other_planes_are_named():
  def scene(name, planes):
    light, focus = np.zeros((1, planes, 8, 8, 3), np.float16), np.zeros((1, planes), np.float32)
    return {'light': light, 'focus': focus, 'inverse_depth': np.zeros((8, 8), np.float32), 'name': name}

  with pytest.raises(InputError, match="scene 'b': found 4 planes, expected 3 as in the first"):
    list(itertools.islice(raytraced_batches([scene('a', 3), scene('b', 4)], 8, batch_size=2).iterate(), 2))


@pytest.mark.parametrize(
  ('later', 'changes', 'message'),
  [
    ({'height': 31}, {}, r"stack '9': frames are 64 x 31 px, expected at least data\.crop_px, 32, on both sides"),
    ({'width': 20}, {}, r"stack '9': frames are 20 x 48 px, expected at least data\.crop_px"),
    ({'frames': 3}, {}, r"stack '9': found 3 frames, expected 2, as the first stack; data\.num_frames makes"),
    ({'frames': 1}, {'num_frames': (2, 2)}, r"stack '9': found 1 frames, expected at least 2"),
  ],
)
def test_a_later_stack_that_does_not_fit(later, changes, message):
  """Of which nothing is known before it is read."""
  with pytest.raises(InputError, match=message):
    batches(0, 5, [([*SOURCE, example(9, **later)], 1.0)], **changes)


def test_a_later_stack_without_motion():
  unknown = example(9) | {'motion': np.full((2, 3), np.nan, np.float32)}
  with pytest.raises(InputError, match=r"stack '9': its motion is unknown, expected motion for all stacks or for none"):
    batches(0, 5, [([*SOURCE, unknown], 1.0)])
