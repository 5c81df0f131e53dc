"""Simulated stacks in folders: what is written reads back as what was simulated, in every unit."""

import dataclasses
import functools
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
from PIL import Image

from focal_jax import optics
from focal_jax.data.folder import read_stack_folder
from focal_jax.data.rgbd import fit_to_canvas
from focal_jax.data.sources import FolderSource
from focal_jax.errors import InputError
from focal_jax.files.pictures import to_uint8
from focal_jax.simulate import write_stacks as simulate_stacks
from focal_jax.simulate.cameras import CAMERAS, SweepSettings
from focal_jax.simulate.focus_sweep import draw_sweep
from focal_jax.simulate.sensor import SensorSettings
from focal_jax.simulate.stacks import SimulatorSettings, focus_unit, preset_settings, settings_from_config, simulate
from focal_jax.stack import FocalStack

ROOT = Path(__file__).parents[2]
SETTINGS = SimulatorSettings(
  num_frames=3,
  height_px=32,
  width_px=40,
  margin_px=8,
  num_surfaces=1,
  sweep=SweepSettings(aligned=0.0, no_metadata=0.0),
  sensor=SensorSettings(jpeg_quality=None),  # which takes half of the compilation
)
MIXED = dataclasses.replace(
  SETTINGS, sweep=SweepSettings(cameras=('dslr', 'defocusnet'), far_dpt=None, range_dpt=None, blur_px=None)
)


@pytest.fixture
def sweeps_only(monkeypatch):
  """Takes the place of the simulator, which is slow to compile: a true sweep, before a flat wall or a photograph."""

  def wall(key, settings):
    sweep = draw_sweep(key, settings.num_frames, settings.width_px, settings.sweep)
    shape = settings.height_px, settings.width_px
    target = jnp.full(shape, sweep.focus[1])
    valid = jnp.ones(shape).at[0].set(0.0)
    images = jnp.broadcast_to(
      jnp.linspace(0, 1, settings.num_frames)[:, None, None, None], (len(sweep.focus), *shape, 3)
    )
    return FocalStack(images, sweep.focus, sweep.fov, target, valid, sweep.motion, images[-1])

  def photograph(key, rgb, depth_m, settings):
    assert rgb.shape == (*settings.canvas, 3)
    assert depth_m.shape == settings.canvas
    margin = settings.margin_px
    inner = rgb[margin : margin + settings.height_px, margin : margin + settings.width_px]
    return wall(key, settings).replace(all_in_focus=inner)

  monkeypatch.setattr(simulate_stacks, 'simulate', wall)
  monkeypatch.setattr(simulate_stacks, 'simulate_rgbd', photograph)


def test_stacks_are_read_back_as_simulated(tmp_path):
  simulate_stacks.simulate_stacks(SETTINGS, tmp_path / 'train', count=2, seed=5)
  assert sorted(path.name for path in (tmp_path / 'train').iterdir()) == ['00000', '00001', 'contact_sheet.png']
  source = FolderSource(tmp_path, 'train')
  assert len(source) == 2
  render = jax.jit(functools.partial(simulate, settings=SETTINGS))
  for index, example in enumerate(source):
    stack = jax.device_get(render(jax.random.fold_in(jax.random.key(5), index)))
    folder = tmp_path / 'train' / f'{index:05}'
    np.testing.assert_array_equal(example['images'], to_uint8(stack.images))
    np.testing.assert_array_equal(example['focus'], stack.focus)
    np.testing.assert_allclose(example['fov'], stack.fov, rtol=0, atol=1e-6)
    assert example['fov'][0] > 1.001
    np.testing.assert_array_equal(example['valid'], stack.valid)
    np.testing.assert_array_equal(example['target'], stack.target * stack.valid)
    np.testing.assert_array_equal(np.load(folder / 'motion.npy'), stack.motion)
    facts = json.loads((folder / 'stack.json').read_text())
    assert facts['focus'] == stack.focus.tolist()
    assert (facts['unit'], facts['seed'], facts['index']) == ('1/m', 5, index)
    assert facts['camera'] in SETTINGS.sweep.cameras
  # Sorted, with all metadata: no other note.
  assert read_stack_folder(folder).notes == [
    'Focus distances are from focus_distance.txt, the focal length from focal_length.txt.'
  ]


@pytest.mark.parametrize('name', ['pixel_6', 'dslr', 'defocusnet', 'ddff12'])
def test_a_preset_has_its_own_sweep_in_its_own_unit(name, sweeps_only, tmp_path):
  simulate_stacks.simulate_stacks(SETTINGS, tmp_path, presets=[name], count=1)
  camera = CAMERAS[name]
  example = FolderSource(tmp_path, name)[0]
  dioptres = camera.sweep_dpt(camera.num_frames)
  # For the unit m, a folder has the inverse.
  focus = optics.DDFF_DISPARITY_M_PX * dioptres if name == 'ddff12' else dioptres
  np.testing.assert_allclose(example['focus'], focus, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(example['target'][1:], example['focus'][1], rtol=1e-6)
  assert not example['valid'][0].any()
  assert example['valid'][1:].all()
  fov = (1 / camera.focal_length_m - dioptres) / (1 / camera.focal_length_m - dioptres[-1])
  np.testing.assert_allclose(example['fov'], 1.0 if camera.aligned else fov, rtol=1e-5)
  folder = tmp_path / name / '00000'
  facts = json.loads((folder / 'stack.json').read_text())
  assert (facts['camera'], facts['unit']) == (name, 'px' if name == 'ddff12' else '1/m')
  assert (folder / 'focus_distance.txt').read_text().startswith('inf\n') == (camera.focus_m[0] == math.inf)
  assert (tmp_path / name / 'contact_sheet.png').is_file()


def test_the_focal_length_is_written_in_the_unit_of_the_distances(sweeps_only, tmp_path):
  moving = dataclasses.replace(CAMERAS['ddff12'], aligned=False, kernel='disc')
  settings = dataclasses.replace(SETTINGS, sweep=dataclasses.replace(SETTINGS.sweep, cameras=(moving,), far_dpt=None))
  simulate_stacks.simulate_stacks(settings, tmp_path, count=1)
  facts = json.loads((tmp_path / '00000' / 'stack.json').read_text())
  assert facts['fov'][0] > 1.001
  np.testing.assert_allclose(read_stack_folder(tmp_path / '00000').fov, facts['fov'], rtol=1e-6)


def test_photographs_are_taken_in_turn_and_named(sweeps_only, tmp_path):
  grey = {level: np.full((30, 90, 3), level, np.uint8) for level in (10, 20)}
  photographs = [
    {'rgb': grey[level], 'depth_m': np.ones((30, 90), np.float32), 'name': f'grey {level}'} for level in (10, 20)
  ]
  simulate_stacks.simulate_stacks(SETTINGS, tmp_path / 'out', count=3, photographs=photographs)
  for index, level in enumerate((10, 20, 10)):
    folder = tmp_path / 'out' / f'{index:05}'
    assert json.loads((folder / 'stack.json').read_text())['photograph'] == f'grey {level}'
    assert (np.asarray(Image.open(folder / 'truth' / 'all_in_focus.png')) == level).all()
  photographs[1]['depth_m'][:] = np.nan
  with pytest.raises(InputError, match='photograph grey 20: has no known depth'):
    simulate_stacks.simulate_stacks(SETTINGS, tmp_path / 'new' / 'out', count=3, photographs=photographs)
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(('height', 'width'), [(8, 8), (8, 4), (7, 11), (24, 40)])
def test_a_photograph_covers_the_canvas_from_its_middle(height, width):
  rows, columns = np.mgrid[:12, :20]
  rgb = np.stack([10 * rows, 10 * columns, 0 * rows], -1).astype(np.uint8)
  depth = (1 + 100 * rows + columns).astype(np.float32)
  colour, fitted = fit_to_canvas(rgb, depth, height, width)
  assert colour.shape == (height, width, 3)
  scale = max(height / 12, width / 20)
  y = (np.arange(height) + 0.5 - height / 2) / scale + 6 - 0.5
  x = (np.arange(width) + 0.5 - width / 2) / scale + 10 - 0.5
  at = np.abs((fitted - 1) // 100 - y[:, None]), np.abs((fitted - 1) % 100 - x)
  assert max(map(np.max, at)) <= 0.5 + 1e-4
  inner = np.s_[2:-2, 1:-1]  # at the border the filter has one side only
  expected = np.broadcast_to(y[:, None], fitted.shape), np.broadcast_to(x, fitted.shape)
  for channel, place in enumerate(expected):
    np.testing.assert_allclose(colour[inner][..., channel] / 10, place[inner], atol=0.35)


def test_a_shorter_run_leaves_nothing_of_a_longer_one(sweeps_only, tmp_path):
  simulate_stacks.simulate_stacks(dataclasses.replace(SETTINGS, num_frames=4), tmp_path, count=2)
  with pytest.raises(InputError, match='--overwrite'):
    simulate_stacks.simulate_stacks(SETTINGS, tmp_path, count=1)
  (tmp_path / '7').mkdir()  # not ours
  simulate_stacks.simulate_stacks(SETTINGS, tmp_path, count=1, overwrite=True)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['00000', '7', 'contact_sheet.png']
  assert len(read_stack_folder(tmp_path / '00000').images) == 3


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'count': 0}, 'count is 0, expected at least 1'),
    ({'presets': ['dslr', 'nikon']}, "camera 'nikon' is not known, expected one of pixel_4_xl, .*ddff12"),
    ({'settings': MIXED}, 'have the units 1/m, m, expected'),
  ],
)
def test_errors_leave_nothing(arguments, message, tmp_path):
  with pytest.raises(InputError, match=message):
    simulate_stacks.simulate_stacks(**{'settings': SETTINGS, 'out': tmp_path / 'new' / 'out', **arguments})
  assert not (tmp_path / 'new').exists()


def test_the_command_says_which_cameras_there_are(tmp_path):
  flags = ['--mode=simulate', f'--out={tmp_path / "out"}', '--presets=dslr,nikon']
  result = programs.run('-m', 'focal_jax.main', *flags)
  assert result.returncode == 2
  assert result.stderr.startswith("focal_jax: error: camera 'nikon' is not known, expected one of pixel_4_xl, ")
  assert result.stderr.count('\n') == 1
  assert not (tmp_path / 'out').exists()


def test_settings_come_from_a_config_and_presets_from_cameras():
  assert settings_from_config(dataclasses.asdict(SETTINGS)) == SETTINGS
  preset = preset_settings('defocusnet', SETTINGS)
  assert (preset.num_frames, preset.height_px, focus_unit(preset)) == (5, SETTINGS.height_px, 'm')
