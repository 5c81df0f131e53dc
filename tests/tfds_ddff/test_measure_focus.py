"""The offset of DDFF-12's focus, from stacks that SciPy blurs for another focus than their labels."""

import json
from pathlib import Path

import h5py
import numpy as np
import programs
import pytest
from layouts import DDFF12_TRAINVAL
from scipy import ndimage

from focal_jax.errors import InputError
from focal_jax.optics import DDFF_FOCUS_OFFSET_PX
from tfds_ddff.build import build
from tfds_ddff.ddff12.measure_focus import measure, train_examples

ROOT = Path(__file__).parents[2]
LABELS = np.linspace(0.0202, 0.2825, 10)  # far to near
SIZE = (60, 80)


def ramp(seed, low, high, offset):
  """Noise on a plane that leans from `low` to `high`, px of true disparity, left to right; frames labelled d are in
  focus at d + offset, and blurred by 40 px (Gaussian sigma) a px of disparity elsewhere.
  """
  rng = np.random.default_rng(seed)
  texture = rng.random((*SIZE, 3))
  truth = np.broadcast_to(np.linspace(low, high, SIZE[1]), SIZE)
  sigmas = np.linspace(0, 12, 61)
  blurred = np.stack([ndimage.gaussian_filter(texture, (sigma, sigma, 0), mode='reflect') for sigma in sigmas])
  rows, columns = np.indices(SIZE)
  frames = []
  for label in LABELS:
    place = np.abs(truth - label - offset) * 40 / sigmas[1]
    below = np.minimum(place.astype(int), len(sigmas) - 2)
    share = (place - below)[..., None]
    frames.append((1 - share) * blurred[below, rows, columns] + share * blurred[below + 1, rows, columns])
  return {
    'images': np.round(255 * np.stack(frames)).astype(np.uint8),
    'focus': LABELS.astype(np.float32),
    'target': truth.astype(np.float32),
    'valid': np.ones(SIZE, np.float32),
  }


@pytest.mark.parametrize('offset', [0.062, 0.0, -0.03])
def test_a_known_constant(offset):
  stacks = [ramp(seed, 0.04 + 0.02 * seed, 0.2 + 0.02 * seed, offset) for seed in range(4)]
  found = measure(stacks)
  assert found.offset == pytest.approx(offset, abs=0.003)
  low, high = found.interval
  assert low <= found.offset <= high
  assert high - low < 0.01
  assert found.stacks == 4
  steps = np.arange(0.01, 0.28, 0.02)
  sharpest = (steps - offset)[3:12]  # steps below and above hold few pixels or none
  assert found.counted[3:12][(sharpest > 0.05) & (sharpest < 0.25)].all()
  assert not found.counted[3:12][(sharpest < 0.015) | (sharpest > 0.285)].any()
  for step in np.flatnonzero(found.counted):
    assert np.nanmedian(found.labels[:, step]) == pytest.approx(steps[step] - offset, abs=0.006)


def test_pixels_never_in_focus_do_not_count():
  """Three stacks beyond the far end, whose sharpest frame is the farthest, beside two that can be measured."""
  beyond = [ramp(seed, 0.021, 0.06, 0.062) for seed in range(3)]
  within = [ramp(seed, 0.12, 0.24, 0.062) for seed in range(3, 5)]
  found = measure(beyond + within)
  assert found.offset == pytest.approx(0.062, abs=0.003)
  assert found.stacks == 2
  assert (found.at_ends[1:3] > 0.9).all()
  assert '| 0.03 | 0.020 | not counted | 100% | 3 |' in found.table()
  with pytest.raises(InputError, match='3 stacks: found no 100 textured pixels'):
    measure(beyond)
  with pytest.raises(InputError, match='0 stacks'):
    measure([])


def test_only_textured_and_valid_pixels_count():
  """Half of the picture is nearly plain and sharpest in the nearest frame; a quarter has no true depth."""
  stacks = [ramp(seed, 0.1, 0.26, 0.05) for seed in range(2)]
  for stack in stacks:
    rng = np.random.default_rng(7)
    stack['images'][:, 30:] = 128
    stack['images'][-1, 30:] += rng.integers(0, 3, (30, 80, 3), np.uint8)
    stack['target'][:15] = 0.17
    stack['valid'][:15] = 0
  assert measure(stacks).offset == pytest.approx(0.05, abs=0.003)
  stacks.append({**stacks[0], 'valid': np.zeros(SIZE, np.float32)})
  assert measure(stacks).stacks == 2


def test_one_stack_has_no_interval():
  found = measure([ramp(0, 0.1, 0.26, 0.05)])
  assert np.isnan(found.interval).all()
  numbers = json.loads(json.dumps(found.as_json(), allow_nan=False))
  assert (numbers['low_px'], numbers['high_px'], numbers['stacks']) == (None, None, 1)


def write_files(folder):
  """Training labels are wrong by 0.05 px, validation labels by 0.0, which must not be used."""
  folder.mkdir()
  with h5py.File(folder / DDFF12_TRAINVAL, 'w') as file:
    for split, offset in (('train', 0.05), ('val', 0.0)):
      stacks = [ramp(seed, 0.1, 0.26, offset) for seed in range(3)]
      file[f'stack_{split}'] = np.stack([stack['images'][::-1, ..., ::-1] for stack in stacks])
      file[f'disp_{split}'] = np.stack([stack['target'] for stack in stacks]).astype(np.float64)


def test_command(tmp_path):
  write_files(tmp_path / 'files')
  command = ('-m', 'tfds_ddff.ddff12.measure_focus', '--manual_dir=files')
  options = {'cwd': tmp_path, 'environment': {'PYTHONPATH': str(ROOT)}}
  done = programs.run(*command, '--out=focus.json', **options)
  assert done.returncode == 0, done.stderr
  numbers = json.loads((tmp_path / 'focus.json').read_text())
  assert numbers['offset_px'] == pytest.approx(0.05, abs=0.003)
  assert numbers['project_offset_px'] == DDFF_FOCUS_OFFSET_PX
  assert f'focus = label + {numbers["offset_px"]:.4f} px (95% interval {numbers["low_px"]:.4f} ..' in done.stdout
  assert '| true disparity, px |' in done.stdout
  failed = programs.run(*command, '--out=none/focus.json', **options)
  assert (failed.returncode, failed.stdout) == (2, '')
  (line,) = failed.stderr.splitlines()
  assert line.startswith('tfds_ddff.ddff12.measure_focus: error: --out is none/focus.json, expected a file')
  build('ddff12', tmp_path / 'files', tmp_path / 'data')
  found = measure(train_examples('ddff12', None, str(tmp_path / 'data')))
  assert found.offset == numbers['offset_px']


@pytest.mark.parametrize(
  ('dataset', 'manual_dir', 'data_dir', 'match'),
  [
    ('fod500', 'files', None, "--dataset is 'fod500', expected ddff12"),
    ('ddff12', None, None, 'expected one of them'),
    ('ddff12', 'files', 'data', 'expected one of them'),
    ('ddff12', 'files', None, DDFF12_TRAINVAL),
    ('ddff12', None, 'data', 'found no data set'),
    ('ddff12/none', 'files', None, "'ddff12/none' is unknown"),
  ],
)
def test_errors(dataset, manual_dir, data_dir, match, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match=match) as caught:
    train_examples(dataset, manual_dir, data_dir)
  assert '\n' not in str(caught.value)


def test_on_real_crops(shared):
  """24 crops of one place: the result next to the project's constant."""
  found = measure(train_examples('ddff12', str(shared / 'data' / 'ddff12'), None))
  assert found.offset == pytest.approx(0.076, abs=0.001)
  assert found.interval == pytest.approx((0.071, 0.084), abs=0.001)
  assert found.stacks == 12
