"""Tiles: where they lie, that their prediction is the whole frame's, and what does not fit."""

import time
from pathlib import Path

import numpy as np
import pytest
from local_network import local_model, soft_frames
from PIL import Image

import focal_jax
from focal_jax import InputError
from focal_jax.prediction import tiles
from focal_jax.prediction.tiles import RAMP, spans, tile_sides
from focal_jax.stack import Prediction, checked_stack

FOCUS = np.float32([0.5, 1.0, 3.0])
FOV = np.float32([1.05, 0.97, 1.0])


@pytest.mark.parametrize(('tile', 'overlap'), [(1024, 320), (640, 320), (64, 32), (256, 96)])
@pytest.mark.parametrize('length', [1, 32, 33, 255, 257, 640, 641, 1025, 3000, 4001])
def test_where_tiles_lie(length, tile, overlap):
  found = spans(length, tile, overlap)
  total = np.zeros(length)
  for span in found:
    assert span.start % 32 == 0
    assert span.start <= span.begin < span.end <= span.stop
    assert span.weights.shape == (span.end - span.begin,)
    assert span.weights.min() > 0
    total[span.begin : span.end] += span.weights
    # What the network is given has one size, and that is no larger than allowed.
    assert rounded_up(span.stop - span.start) == rounded_up(found[0].stop - found[0].start) <= tile
    margin = (1 - RAMP) / 2 * overlap - 1
    assert span.start == 0 or span.begin - span.start >= margin
    assert span.stop == length or span.stop - span.end >= margin
  np.testing.assert_allclose(total, 1, atol=1e-6)
  assert found[0].start == 0
  assert found[-1].stop == length
  assert all(a.stop - b.start >= overlap for a, b in zip(found[:-2], found[1:-1], strict=True))
  # One less would be larger than allowed.
  assert len(found) == 1 or tile * (len(found) - 1) - overlap * (len(found) - 2) < rounded_up(length)


def rounded_up(length):
  return length + -length % 32


@pytest.mark.slow
@pytest.mark.parametrize('given', ['estimated', 'motion', 'metadata', 'unaligned'])
@pytest.mark.parametrize(('padding', 'resampling'), [('edge', 'lanczos'), ('black', 'linear')])
def test_tiles_are_the_whole(padding, resampling, given, capfd):
  """A network whose cells of 32 px see the row and column beyond them, over frames of no multiple of 32."""
  frames = soft_frames(3, 201, 330)
  model = local_model(motion_side_px=100, padding=padding, resampling=resampling)
  options = {
    'estimated': {'align': 'network'},
    'motion': {'motion': np.float32([[0.01, 13.3, -7.7], [0.002, -5.0, 30.25], [0, 0, 0]])},
    'metadata': {'align': 'metadata'},
    'unaligned': {'align': 'off'},
  }[given]
  whole = model.predict(frames, FOCUS, FOV, **options)
  before = frames.copy()
  tiled = model.predict(frames, FOCUS, FOV, **options, tile_px=192, overlap_px=96)
  assert '6/6' in capfd.readouterr().err
  np.testing.assert_array_equal(frames, before)
  np.testing.assert_allclose(tiled.motion, whole.motion, rtol=1e-4, atol=1e-6)
  for name, dtype, tolerance in (
    ('depth', np.float32, 3e-4),
    ('confidence', np.float32, 3e-4),
    ('weights', np.float16, 1e-3),
    ('coverage', np.float16, 1e-3),
    ('aligned', np.float16, 1e-3),
  ):
    ours, expected = getattr(tiled, name), getattr(whole, name)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, expected, atol=tolerance, err_msg=name)
  assert tiled.pyramid is None
  assert np.ptp(whole.depth) > 0.5
  assert model._apply._cache_size() == 2  # the whole, and one for all tiles
  as_float = model.predict(frames / 255, FOCUS, FOV, **options, tile_px=192, overlap_px=96)
  np.testing.assert_allclose(as_float.depth, tiled.depth, atol=3e-4)


@pytest.mark.slow
def test_seams_of_the_shipped_weights():
  """With the overlap that is the default: no column of the transition stands out from the next one.

  The depth itself differs by more: what the classical estimate fills in depends on the texture of all that it sees.
  """
  paths = sorted((Path(__file__).parents[2] / 'examples' / 'pcb').iterdir())
  frames = np.stack([np.asarray(Image.open(path))[800:864, 500:1460] for path in (paths[-1], paths[0])])
  model = focal_jax.load()
  whole = model.predict(frames, [0, 1], align='off')
  tiled = model.predict(frames, [0, 1], align='off', tile_px=640)
  assert np.ptp(whole.depth[:, 300:660]) > 0.1
  difference = tiled.depth - whole.depth
  assert np.abs(difference).mean() < 0.05
  steps = np.abs(np.diff(difference, axis=1)).mean(0)  # mean over the rows, of each column to the next
  transition = slice(440, 520)  # a fifth of the overlap, 320 to 640 px, and a little more
  assert steps[transition].max() < 0.008
  assert steps[transition].mean() < np.delete(steps, transition).mean()


def test_time_estimate_does_not_count_compilation(monkeypatch):
  shown = []

  class Bar(tiles.tqdm):
    def display(self, *args, **kwargs):
      shown.append(self.format_dict)

  def predict(part, motion):
    if not shown[1:]:
      time.sleep(0.5)  # compilation
    depth = part.images[0, ..., 0]
    return Prediction(depth, depth, part.images, depth[None].repeat(2, 0), np.zeros((2, 3), np.float32))

  monkeypatch.setattr(tiles, 'tqdm', Bar)
  stack = checked_stack(np.zeros((2, 64, 448, 3), np.float32), [0, 1], None)
  tiles.predict_in_tiles(predict, stack, None, 64, 32, sharp=False)
  last = shown[-1]
  assert last['n'] == last['total'] >= 10
  rate = (last['n'] - last['initial']) / last['elapsed']  # as the bar shows it
  assert last['rate'] is None
  assert last['elapsed'] < 0.5
  assert rate > last['n'] / 0.5


SIZE = (768, 1024)


@pytest.mark.parametrize('size', [SIZE, (1024, 768), (1024, 1024), (3000, 4000), (200, 5000)])
def test_default_size_keeps_the_memory(size):
  """Of ten to twenty frames, tiles take no more than one piece may; of more, twice as much. More frames, smaller tiles
  that overlap less.
  """
  found = {frames: tile_sides(None, None, frames, size) for frames in (8, 10, 12, 20, 40, 100, 280)}
  pixels = {frames: frames * height * width for frames, ((height, width), _) in found.items()}
  assert all(pixels[frames] <= 5.5 * 1024**2 for frames in (8, 10, 12, 20))
  assert all(pixels[frames] <= 10 * 1024**2 + frames * 192**2 * (frames > 250) for frames in (40, 100, 280))
  for (height, width), overlap in found.values():
    assert height % 32 == width % 32 == 0
    for side, length in ((height, size[0]), (width, size[1])):
      made = spans(length, side, overlap)
      assert np.concatenate([span.weights for span in made]).sum() == pytest.approx(length, rel=1e-4)
      assert max(span.stop - span.start for span in made) <= side
  assert [overlap for _, overlap in found.values()] == [320, 320, 320, 256, 256, 160, 96]


def test_default_size_is_the_cheapest():
  """Two tiles side by side for ten frames of 1024 x 768: 1.3 times the pixels, where four would have 1.9."""
  assert tile_sides(None, None, 10, SIZE) == ((768, 672), 320)
  assert tile_sides(None, None, 10, SIZE[::-1]) == ((672, 768), 320)
  assert tile_sides(None, None, 1000, SIZE)[1] == 96
  assert tile_sides(704, None, 10, SIZE) == ((704, 704), 320)


def test_pieces_are_as_large_as_one_may_be():
  one_piece = checked_stack(np.zeros((7, *SIZE, 3), np.uint8), range(7), None)
  assert not tiles.are_needed(one_piece, None)
  assert tiles.are_needed(one_piece, 320)
  assert tiles.are_needed(checked_stack(np.zeros((8, *SIZE, 3), np.uint8), range(8), None), None)


@pytest.mark.slow
def test_large_frames_are_predicted_in_tiles_unasked(monkeypatch):
  monkeypatch.setattr(tiles, 'FRAMES_PX', 3 * 640 * 640)
  monkeypatch.setattr(tiles, 'MIN_PIECE_PX', 0)
  model = local_model()
  whole, large = soft_frames(3, 640, 640), soft_frames(3, 640, 672)
  assert model.predict(whole, FOCUS).pyramid is not None
  out = model.predict(large, FOCUS)
  assert out.pyramid is None
  np.testing.assert_allclose(out.depth, model.predict(large, FOCUS, tile_px=640).depth, atol=1e-6)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'tile_px': 100}, 'tile_px is 100, expected a multiple of 32, at least 192'),
    ({'tile_px': 160}, 'tile_px is 160, expected a multiple of 32, at least 192'),
    ({'tile_px': 608, 'overlap_px': 320}, 'tile_px is 608, expected a multiple of 32, at least 640'),
    ({'overlap_px': 0}, 'overlap_px is 0, expected a multiple of 32, at least 32'),
    ({'overlap_px': 100}, 'overlap_px is 100, expected a multiple of 32'),
    ({'focus': [1.0]}, r'focus: shape \(1,\)'),
    ({'motion': np.zeros((2, 3))}, r'motion: shape \(2, 3\), expected \(3, 3\)'),
    ({'motion': np.zeros((3, 3)), 'align': 'off'}, "motion is given and align is 'off'"),
  ],
)
def test_bad_arguments(arguments, message):
  with pytest.raises(InputError, match=message):
    local_model().predict(**{'images': np.zeros((3, 8, 8, 3), np.uint8), 'focus': FOCUS, 'tile_px': 640} | arguments)
