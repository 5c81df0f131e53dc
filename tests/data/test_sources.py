"""Sources by name: texts with weights, folders of stacks, the simulator as a source."""

import numpy as np
import pytest
from PIL import Image

from focal_jax.data.pipeline import motion_known
from focal_jax.data.sources import open_source, parse_sources
from focal_jax.errors import InputError
from focal_jax.optics import ddff_focus_disparities
from focal_jax.simulate.stacks import SimulatorSettings

SIMULATOR = SimulatorSettings(num_frames=3, height_px=32, width_px=32, num_surfaces=3, margin_px=8)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('ddff12', [('ddff12', 1.0)]),
    ('0.7*ddff12/raw + 0.3*simulated', [('ddff12/raw', 0.7), ('simulated', 0.3)]),
    ('folder:/a*b/c+d + 2*folder:rel', [('folder:/a*b/c+d', 1.0), ('folder:rel', 2.0)]),
  ],
)
def test_texts(text, expected):
  assert parse_sources(text) == expected


@pytest.mark.parametrize('text', ['', '2*', 'x*ddff12', '0*ddff12', '-1*ddff12', 'inf*ddff12', 'ddff12 + '])
def test_bad_texts(text):
  with pytest.raises(InputError, match=r"data\.source has the part '.*', expected 'NAME' or 'WEIGHT\*NAME'"):
    parse_sources(text)


@pytest.fixture
def folder(tmp_path):
  """Two stacks of three frames, near to far, with distances in metres and partly known depth."""
  rng = np.random.default_rng(0)
  for name in ('b', 'a'):
    stack = tmp_path / 'train' / name
    stack.mkdir(parents=True)
    for n in range(3):
      Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).save(stack / f'{n}.png')
    (stack / 'focus_distance.txt').write_text('0.5 1 2')
    (stack / 'focal_length.txt').write_text('0.1')
    target = rng.uniform(0.5, 2, (6, 8))
    target[0, :3] = [np.nan, np.inf, 0.25]
    np.save(stack / 'target.npy', target)
  return tmp_path


def test_a_folder_of_stacks(folder):
  source = open_source(f'folder:{folder}', 'train', '')
  assert [example['name'] for example in source] == ['a', 'b']
  example = source[1]
  frames = [np.asarray(Image.open(folder / 'train' / 'b' / f'{n}.png')) for n in (2, 1, 0)]
  np.testing.assert_array_equal(example['images'], frames)
  np.testing.assert_allclose(example['focus'], [0.5, 1, 2])
  np.testing.assert_allclose(example['fov'], np.array([10 - 0.5, 10 - 1, 10 - 2]) / 8, rtol=1e-6)
  target = np.load(folder / 'train' / 'b' / 'target.npy')
  np.testing.assert_array_equal(example['valid'], np.isfinite(target))
  np.testing.assert_array_equal(example['target'], np.where(np.isfinite(target), target, 0).astype(np.float32))
  assert np.isnan(example['motion']).all()
  np.save(folder / 'train' / 'b' / 'motion.npy', np.arange(9.0).reshape(3, 3))
  np.testing.assert_array_equal(source[1]['motion'], np.arange(9).reshape(3, 3))
  assert {example[name].dtype for name in ('focus', 'fov', 'motion', 'target', 'valid')} == {np.dtype('float32')}


@pytest.mark.parametrize(
  ('spoil', 'message'),
  [
    (lambda stack: (stack / 'target.npy').unlink(), r'a/target\.npy: found no such file, expected the depth'),
    (lambda stack: (stack / 'target.npy').write_bytes(b'x'), r'a/target\.npy: found a file that cannot be read'),
    (
      lambda stack: np.save(stack / 'target.npy', np.zeros((6, 7))),
      r'y: is \(6, 7\) float64, expected \(6, 8\)',
    ),
    (
      lambda stack: np.save(stack / 'target.npy', np.zeros((6, 8), int)),
      r'y: is \(6, 8\) int64, expected .* floating',
    ),
  ],
)
def test_bad_folders(spoil, message, folder):
  spoil(folder / 'train' / 'a')
  with pytest.raises(InputError, match=message):
    open_source(f'folder:{folder}', 'train', '')[0]


def test_a_folder_that_is_not_there_or_empty(folder):
  with pytest.raises(InputError, match='val: found no such folder'):
    open_source(f'folder:{folder}', 'val', '')
  (folder / 'val').mkdir()
  with pytest.raises(InputError, match='val: found no folders, expected one for each stack'):
    open_source(f'folder:{folder}', 'val', '')


def test_the_simulator_as_a_source():
  train, val = (open_source('simulated', split, '', SIMULATOR) for split in ('train', 'val'))
  assert len(train) >= 10**6
  example = train[123]
  assert example['images'].shape == (3, 32, 32, 3)
  assert example['images'].dtype == np.uint8
  assert example['images'].std() > 5
  assert np.all(np.diff(example['focus']) > 0)  # dioptres, far to near
  assert np.isfinite(example['motion']).all()
  known = example['target'][example['valid'] > 0]
  assert example['focus'][0] <= known.min() <= known.max() <= example['focus'][-1]
  np.testing.assert_array_equal(train[123]['images'], example['images'])
  assert not np.array_equal(train[124]['images'], example['images'])
  assert not np.array_equal(val[123]['images'], example['images'])


def test_the_simulator_with_the_sweep_of_a_camera():
  example = open_source('simulated/ddff12', 'val', '', SIMULATOR)[0]
  np.testing.assert_allclose(example['focus'], ddff_focus_disparities()[::-1], rtol=1e-5)
  assert example['images'].shape == (10, 32, 32, 3)
  with pytest.raises(InputError, match="camera 'box' is not known, expected one of pixel_4_xl"):
    open_source('simulated/box', 'val', '', SIMULATOR)


def test_motion_beside_some_stacks_only(folder):
  """In either order of the sources."""
  source = open_source(f'folder:{folder}', 'train', '')
  assert not motion_known([source])
  for with_motion, without in (('a', 'b'), ('b', 'a')):
    np.save(folder / 'train' / with_motion / 'motion.npy', np.zeros((3, 3)))
    with pytest.raises(InputError, match=rf'train/{without}/motion\.npy: found no such file, but one in 1 of 2 stacks'):
      motion_known([source])
    (folder / 'train' / with_motion / 'motion.npy').unlink()
  for name in 'ab':
    np.save(folder / 'train' / name / 'motion.npy', np.zeros((3, 3)))
  assert motion_known([source])


def test_motion_that_is_not_finite(folder):
  np.save(folder / 'train' / 'b' / 'motion.npy', np.full((3, 3), np.nan))
  with pytest.raises(InputError, match=r'b/motion\.npy: found numbers that are not finite'):
    open_source(f'folder:{folder}', 'train', '')[1]


def test_simulated_stacks_follow_the_seed():
  images = [open_source('simulated', 'train', '', SIMULATOR, seed)[0]['images'] for seed in (0, 1)]
  assert not np.array_equal(*images)
  np.testing.assert_array_equal(open_source('simulated', 'train', '', SIMULATOR)[0]['images'], images[0])
