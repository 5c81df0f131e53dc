"""The estimate of needed memory against the measured memory of whole commands, and refusal for lack of memory."""

import numpy as np
import pytest
from PIL import Image

from focal_jax import InputError
from focal_jax.prediction import memory
from focal_jax.prediction.predict import Options, predict_folder


# Largest resident size of `focal-jax predict` of frames of 1024 x 768 px, GiB.
@pytest.mark.parametrize(
  ('frames', 'network', 'measured'),
  [(10, True, 1.78), (100, True, 3.63), (300, True, 5.68), (100, False, 1.3), (300, False, 2.9)],
)
def test_needed_memory_is_what_was_measured(frames, network, measured):
  assert memory.needed_bytes(frames, (768, 1024), network=network) / memory.GIB == pytest.approx(measured, rel=0.15)


def test_smaller_tiles_need_less():
  sizes = [memory.needed_bytes(20, (768, 1024), network=True, tile_px=side) for side in (None, 320, 192)]
  assert sizes == sorted(sizes, reverse=True)
  assert sizes[0] > sizes[2]


def test_too_little_memory_is_reported_before_the_work(tmp_path, monkeypatch):
  for n in range(3):
    noise = np.random.default_rng(n).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / f'{n}.png')
  free = tmp_path / 'meminfo'
  free.write_text('MemTotal: 9999999 kB\nMemAvailable:  100 kB\nSwapFree: 28 kB\n')
  monkeypatch.setattr(memory, '_MEMINFO', free)
  assert memory.free_bytes() == 128 * 1024
  with pytest.raises(InputError, match=r'3 frames of 96 x 64 px need about 0\.5 GiB of memory, but only 0\.0 GiB'):
    predict_folder(tmp_path, tmp_path / 'out', Options(method='classical'))
  assert not (tmp_path / 'out').exists()
  free.write_text('nothing')
  assert memory.free_bytes() is None
  memory.check_memory(10**6, (10**4, 10**4), network=True)
