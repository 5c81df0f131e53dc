"""The 16-bit depth PNG, read back as its sidecar says."""

import json
import struct

import numpy as np
import pytest
from PIL import Image

from focal_jax.prediction.depth_png import write_depth_png


def read(path):
  """Depth, NaN where there is none; and the step."""
  sidecar = json.loads(path.with_suffix('.json').read_text())
  values = np.asarray(Image.open(path)).astype(np.float64)
  depth = sidecar['offset'] + sidecar['scale'] * values
  return np.where(values == sidecar['no_depth'], np.nan, depth), sidecar


@pytest.mark.parametrize(('low', 'high'), [(0.0, 9.0), (-3e-7, 5e-7), (0.1384, 7.23), (1e6, 1e6 + 50), (-5.0, -1.0)])
def test_read_back_within_half_a_step(tmp_path, low, high):
  depth = np.random.default_rng(0).uniform(low, high, (40, 30)).astype(np.float32)
  write_depth_png(tmp_path / 'depth.png', depth, '1/m')
  back, sidecar = read(tmp_path / 'depth.png')
  assert sidecar['unit'] == '1/m'
  assert sidecar['scale'] == pytest.approx((depth.max() - depth.min()) / 65534)
  assert np.abs(back - depth).max() <= 0.5001 * sidecar['scale']


def test_is_sixteen_bit_grey(tmp_path):
  write_depth_png(tmp_path / 'depth.png', np.arange(12, dtype=np.float32).reshape(3, 4), 'm')
  header = (tmp_path / 'depth.png').read_bytes()[:26]
  assert header[:8] == b'\x89PNG\r\n\x1a\n'
  assert struct.unpack('>IIBB', header[16:26]) == (4, 3, 16, 0)  # width, height, bits, grey


def test_pixels_without_depth(tmp_path):
  depth = np.array([[1, np.nan, 3], [np.inf, 2, -np.inf]], np.float32)
  write_depth_png(tmp_path / 'depth.png', depth, 'm')
  back, sidecar = read(tmp_path / 'depth.png')
  np.testing.assert_allclose(back, [[1, np.nan, 3], [np.nan, 2, np.nan]], atol=sidecar['scale'])


@pytest.mark.parametrize('value', [0.3, np.nan])
def test_one_value_only(tmp_path, value):
  write_depth_png(tmp_path / 'depth.png', np.full((2, 3), value, np.float32), 'm')
  back, _ = read(tmp_path / 'depth.png')
  np.testing.assert_array_equal(back, np.full((2, 3), np.float32(value)))
