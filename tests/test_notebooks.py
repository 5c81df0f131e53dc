"""The notebooks run from start to end, on small frames."""

import base64
import io
import json
import os
from importlib import metadata
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / 'notebooks'


def run(name, folder, replacements):
  """Executes a notebook with some text replaced, in a folder; returns the output of each cell."""
  notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
  for old, new in replacements.items():
    (cell,) = [cell for cell in notebook.cells if old in cell.source]
    cell.source = cell.source.replace(old, new)
  # The kernel inherits XLA's flags and the compilation cache of conftest.py.
  NotebookClient(notebook, timeout=600, resources={'metadata': {'path': str(folder)}}).execute()
  return [cell.get('outputs', []) for cell in notebook.cells]


def pictures(outputs):
  data = [output['data']['image/png'] for cell in outputs for output in cell if 'image/png' in output.get('data', {})]
  return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in data]


@pytest.mark.parametrize('path', sorted(NOTEBOOKS.glob('*.ipynb')), ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  assert not any(cell.get('outputs') for cell in notebook.cells)


@pytest.mark.slow
@pytest.mark.filterwarnings('default')  # Jupyter's own
def test_quickstart():
  outputs = run('quickstart.ipynb', NOTEBOOKS, {'MAX_SIDE = 512': 'MAX_SIDE = 64'})
  (picture,) = pictures(outputs)
  assert picture.std() > 0


@pytest.mark.slow
@pytest.mark.filterwarnings('default')  # Jupyter's own
def test_colab(monkeypatch, tmp_path):
  """Three devices, of which the smoke recipe's batch of two is no multiple; pip finds all it needs in place."""
  monkeypatch.setenv('FOCAL_JAX_SMOKE', '1')
  monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
  monkeypatch.setenv('XLA_FLAGS', f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count=3')
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  outputs = run('colab_tpu.ipynb', tmp_path, {"REPOSITORY = ''": f'REPOSITORY = {str(ROOT)!r}'})

  assert sorted(path.name for path in tmp_path.iterdir()) == ['constraints.txt', 'runs']
  assert f'jax=={metadata.version("jax")}' in (tmp_path / 'constraints.txt').read_text().splitlines()
  shown = [output['data']['text/plain'] for cell in outputs for output in cell if 'data' in output]
  assert shown[0].count('CpuDevice') == 3
  out = tmp_path / 'runs' / 'colab'
  assert json.loads((out / 'training' / 'config.json').read_text())['batch_size'] == 3
  assert np.load(out / 'pcb' / 'depth.npy').shape == (48, 64)
  images = pictures(outputs)
  assert len(images) == 5  # curves, validation, two evaluations, a real stack
  assert all(image.std() > 0 for image in images)
  for drawn, name in zip(images[2:], ('simulated/comparison', 'crops/comparison', 'pcb/contact_sheet'), strict=True):
    np.testing.assert_array_equal(drawn, np.asarray(Image.open(out / f'{name}.png')))
