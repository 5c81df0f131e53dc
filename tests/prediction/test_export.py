"""An exported model gives the same numbers without this project, at any size; and its description."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.export
import jaxtyping
import numpy as np
import pytest
from local_network import CellDepth, local_model, soft_frames
from PIL import Image

import focal_jax
from focal_jax import InputError
from focal_jax.models.alignment import FittedAlignment, NoAlignment
from focal_jax.models.end_to_end import EndToEnd, init_variables
from focal_jax.models.registry import make_model
from focal_jax.prediction.export import export_model
from focal_jax.prediction.network_predictor import NetworkPredictor

EXAMPLE = Path(__file__).parents[2] / 'examples' / 'run_exported.py'
# The example, in a process where `import focal_jax` fails.
WITHOUT_MODEL_CODE = """
import runpy, sys
sys.modules['focal_jax'] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture(autouse=True)
def symbolic_sizes(monkeypatch):
  """Type checkers do not accept them as `int`."""
  monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)


def run_example(*arguments):
  command = [sys.executable, '-c', WITHOUT_MODEL_CODE, EXAMPLE, *arguments]
  return subprocess.run(command, capture_output=True, text=True, check=False)


def call(folder, images, focus, fov):
  """One stack, padded as predict does it, with something else."""
  height, width = images.shape[1:3]
  padded = np.pad(images, ((0, 0), (0, -height % 32), (0, -width % 32), (0, 0)), constant_values=0.7)
  exported = jax.export.deserialize((folder / 'model.jax_export').read_bytes())
  size = np.int32([height, width])
  out = exported.call(*(np.float32(x)[None] for x in (padded, focus, fov)), size)
  maps = {name: x[0, ..., :height, :width] for name, x in out.items() if name not in ('aligned', 'motion')}
  return maps | {'aligned': out['aligned'][0, :, :height, :width], 'motion': out['motion'][0]}


@pytest.mark.slow
def test_without_the_model_code(tmp_path):
  """Weights that move the frames, the motion from reduced ones."""
  # Compiles faster than the whole network.
  described = {'depth': {'detection': 'none', 'downsampling': 'pooling'}, 'align': {'side_px': 40}}
  network = make_model(described)
  variables = init_variables(network, 3)
  for level in range(3):
    motion = variables['params']['alignment'][f'head{level}']['motion']
    motion['kernel'] = 100 * motion['kernel']
  model = NetworkPredictor('some weights', network, variables, {'model': described}, [])
  about = export_model(model, tmp_path / 'exported')
  assert json.loads((tmp_path / 'exported' / 'model.json').read_text()) == about
  assert {path.name for path in (tmp_path / 'exported').iterdir()} == {'model.jax_export', 'model.json'}
  assert about['platforms'] == ['cpu', 'cuda', 'tpu']
  assert about['weights'] == 'some weights'
  assert about['inputs']['images']['shape'] == 'B, N, 32*h, 32*w, 3'
  assert about['outputs']['weights'] == {
    'shape': 'B, N, 32*h, 32*w',
    'dtype': 'float32',
    'meaning': 'the focus distribution; sums to 1 over the frames',
  }
  (tmp_path / 'frames').mkdir()
  frames = np.random.default_rng(0).integers(0, 256, (3, 37, 50, 3), np.uint8)
  for n, frame in enumerate(frames):
    Image.fromarray(frame).save(tmp_path / 'frames' / f'{n}.png')
  files = tmp_path / 'exported' / 'model.jax_export', tmp_path / 'frames', tmp_path / 'depth.npy'
  done = run_example(*files)
  assert done.returncode == 0, done.stderr
  assert '37 x 50 px' in done.stdout
  expected = model.predict(frames, np.arange(3), align='network')
  assert np.abs(expected.motion).max() > 0.2
  np.testing.assert_allclose(np.load(files[2]), expected.depth, atol=1e-5)
  reduced = run_example(*files[:2], tmp_path / 'reversed.npy', '--near_to_far', '--max_side=40')
  assert reduced.returncode == 0, reduced.stderr
  small = [Image.fromarray(frame).resize((40, 30), Image.Resampling.LANCZOS) for frame in frames[::-1]]
  expected = model.predict(np.stack(small), np.arange(3), align='network')
  np.testing.assert_allclose(np.load(tmp_path / 'reversed.npy'), expected.depth, atol=1e-5)
  again = run_example(*files)
  assert again.returncode != 0
  assert 'depth.npy exists, expected a new file' in again.stderr


def test_wrong_arguments_of_the_example(tmp_path, monkeypatch, capsys):
  """Found before anything is computed."""
  model = tmp_path / 'model.jax_export'
  model.write_bytes(b'')
  for arguments, message in (
    (('absent', tmp_path, 'depth.npy'), 'absent: found no such file'),
    ((model, 'absent', 'depth.npy'), 'absent: found no such folder'),
    ((model, tmp_path, 'absent/depth.npy'), 'absent: found no such folder'),
    ((model, tmp_path, 'depth.npy'), 'has 0 JPEG and PNG frames, expected at least 2'),
    ((model, tmp_path, model), 'model.jax_export exists, expected a new file'),
  ):
    monkeypatch.setattr(sys, 'argv', [str(EXAMPLE), *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
      runpy.run_path(str(EXAMPLE), run_name='__main__')
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('align', ['network', 'metadata', 'off'])
def test_any_size_and_all_results(tmp_path, align):
  model = local_model(motion_side_px=100)
  export_model(model, tmp_path, align=align)
  for frames, height, width in ((3, 70, 200), (2, 150, 33), (5, 20, 96)):
    images = soft_frames(frames, height, width) / np.float32(255)
    focus, fov = np.arange(frames) / 3, np.linspace(1.05, 1, frames)
    expected = model.predict(images, focus, fov, align)
    for name, value in call(tmp_path, images, focus, fov).items():
      np.testing.assert_allclose(value, getattr(expected, name), rtol=1e-6, atol=1e-5, err_msg=name)
    assert (np.abs(expected.motion).max() > 0.5) == (align == 'network')
    assert (np.abs(expected.aligned - images).max() > 0.02) == (align != 'off')


@pytest.mark.slow
def test_fitted_alignment_of_any_size(tmp_path):
  network = EndToEnd(CellDepth(), FittedAlignment(), motion_side_px=40)
  model = NetworkPredictor('some weights', network, init_variables(network, 3), {}, [])
  export_model(model, tmp_path)
  images = np.random.default_rng(0).random((3, 37, 50, 3), np.float32)
  focus, fov = np.arange(3.0), np.linspace(1.05, 1, 3)
  expected = model.predict(images, focus, fov, 'network')
  assert np.abs(expected.motion).max() > 0.01
  np.testing.assert_allclose(call(tmp_path, images, focus, fov)['motion'], expected.motion, atol=1e-4)


@pytest.mark.slow
def test_the_weights_that_ship_in_any_size(tmp_path):
  """Two sizes and numbers of frames that `predict` knows when it compiles, and the export does not."""
  model = focal_jax.load()
  export_model(model, tmp_path, align='off')
  for frames, height, width in ((3, 70, 100), (2, 33, 64)):
    images = soft_frames(frames, height, width) / np.float32(255)
    focus, fov = np.arange(frames) / 3, np.ones(frames)
    expected = model.predict(images, focus, fov, align='off')
    for name, value in call(tmp_path, images, focus, fov).items():
      np.testing.assert_allclose(value, getattr(expected, name), atol=1e-3, err_msg=name)
    assert np.ptp(expected.depth) > 0.1


def test_two_stacks_at_once(tmp_path):
  model = local_model()
  export_model(model, tmp_path)
  images = np.stack([soft_frames(2, 64, 96), soft_frames(2, 64, 96)[::-1]]) / np.float32(255)
  focus, fov, size = np.float32([[0, 1], [2, 3]]), np.float32([[1.03, 1], [1, 1.02]]), np.int32([64, 96])
  exported = jax.export.deserialize((tmp_path / 'model.jax_export').read_bytes())
  depth = exported.call(images, focus, fov, size)['depth']
  for n in range(2):
    np.testing.assert_allclose(depth[n], model.predict(images[n], focus[n], fov[n], 'network').depth, atol=1e-5)


def test_bad_input_writes_nothing(tmp_path):
  with pytest.raises(InputError, match='classical: has no network to export, expected the weights of a network'):
    export_model(focal_jax.load('classical'), tmp_path / 'new')
  for align, message in (
    (True, 'align is True, expected one of measured, network, metadata, off'),
    ('measured', "align is 'measured', which cannot be exported, expected network, metadata or off"),
  ):
    with pytest.raises(InputError, match=message):
      export_model(local_model(), tmp_path / 'new', align=align)
  unaligned = NetworkPredictor('some weights', EndToEnd(CellDepth(), NoAlignment()), {}, {}, [])
  with pytest.raises(InputError, match="some weights: has no alignment network and align is 'network', expected meta"):
    export_model(unaligned, tmp_path / 'new')
  assert not (tmp_path / 'new').exists()
  (tmp_path / 'model.json').write_text('mine')
  with pytest.raises(InputError, match='already holds files; expected a new or empty folder, or --overwrite'):
    export_model(local_model(), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['model.json']
  assert (tmp_path / 'model.json').read_text() == 'mine'
  export_model(local_model(), tmp_path, overwrite=True)
  assert json.loads((tmp_path / 'model.json').read_text())['weights'] == 'local'
