"""The estimate of needed memory against the measured memory of whole commands, and refusal for lack of memory."""

import jax
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
  monkeypatch.setattr(memory, '_OWN_CGROUPS', tmp_path / 'none')
  free.write_text('MemTotal: 9999999 kB\nMemAvailable:  100 kB\nSwapFree: 28 kB\n')
  monkeypatch.setattr(memory, '_MEMINFO', free)
  assert memory.free_bytes() == 128 * 1024
  needed = r'3 frames of 96 x 64 px need about 0\.5 GiB of memory, but only 0\.0 GiB'
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')  # where a CPU is chosen
  with jax.default_device(jax.devices('cpu')[0]), pytest.raises(InputError, match=needed):
    predict_folder(tmp_path, tmp_path / 'out', Options(method='classical'))
  assert not (tmp_path / 'out').exists()
  free.write_text('nothing')
  assert memory.free_bytes() is None
  memory.check_memory(10**6, (10**4, 10**4), network=True)


GIB = 2**30
NO_LIMIT = 2**63 - 4096  # as version 1 writes it


@pytest.mark.parametrize(
  ('own', 'files', 'free_gib'),
  [
    # Version 2; the limit may be that of a group above.
    ('0::/', {'memory.max': 4 * GIB, 'memory.current': GIB, 'memory.stat': 'anon 5\ninactive_file 0'}, 3),
    ('0::/', {'memory.max': 4 * GIB, 'memory.current': 3 * GIB, 'memory.stat': f'inactive_file {2 * GIB}'}, 3),
    ('0::/', {'memory.max': 'max', 'memory.current': GIB, 'memory.stat': 'inactive_file 0'}, 8),
    ('0::/', {'memory.max': GIB, 'memory.current': 2 * GIB, 'memory.stat': 'inactive_file 0'}, 0),
    (
      '0::/job/step',
      {
        'job/memory.max': 2 * GIB,
        'job/memory.current': GIB,
        'job/memory.stat': 'inactive_file 0',
        'job/step/memory.max': 'max',
        'job/step/memory.current': GIB,
        'job/step/memory.stat': 'inactive_file 0',
      },
      1,
    ),
    # Of another group, or of a host that is larger.
    ('0::/', {'other/memory.max': GIB, 'other/memory.current': 0, 'other/memory.stat': 'inactive_file 0'}, 8),
    ('0::/', {'memory.max': 64 * GIB, 'memory.current': 0, 'memory.stat': 'inactive_file 0'}, 8),
    # Version 1; the path is that on the host, which a container does not see.
    (
      '3:cpu,cpuacct:/docker/1f\n2:memory:/docker/1f\n1:name=systemd:/docker/1f',
      {
        'memory/memory.limit_in_bytes': 3 * GIB,
        'memory/memory.usage_in_bytes': GIB,
        'memory/memory.stat': 'inactive_file 1\ntotal_inactive_file 0',
      },
      2,
    ),
    (
      '2:memory:/',
      {
        'memory/memory.limit_in_bytes': NO_LIMIT,
        'memory/memory.usage_in_bytes': GIB,
        'memory/memory.stat': 'total_inactive_file 0',
      },
      8,
    ),
    ('nonsense', {}, 8),
  ],
)
def test_limits_of_containers_count(tmp_path, monkeypatch, own, files, free_gib):
  monkeypatch.setattr(memory, '_MEMINFO', tmp_path / 'meminfo')
  monkeypatch.setattr(memory, '_OWN_CGROUPS', tmp_path / 'own')
  monkeypatch.setattr(memory, '_CGROUPS', tmp_path / 'cgroup')
  (tmp_path / 'meminfo').write_text(f'MemAvailable: {8 * 2**20} kB\nSwapFree: 0 kB\n')
  (tmp_path / 'own').write_text(own + '\n')
  for name, content in files.items():
    (tmp_path / 'cgroup' / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / 'cgroup' / name).write_text(f'{content}\n')
  assert memory.free_bytes() == free_gib * GIB
