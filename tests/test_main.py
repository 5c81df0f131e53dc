"""The command line: what goes wrong is one line on standard error, status 2, and nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def command(*arguments, module='focal_jax.main'):
  return subprocess.run(
    [sys.executable, '-m', module, *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def assert_one_line(result, *parts):
  assert result.returncode == 2, result.stderr
  lines = result.stderr.strip().splitlines()
  assert len(lines) == 1, result.stderr
  assert lines[0].startswith('focal_jax: error: ')
  for part in parts:
    assert part in lines[0]


@pytest.fixture
def frames(tmp_path):
  folder = tmp_path / 'stack'
  folder.mkdir()
  for index in range(3):
    pixels = np.random.default_rng(index).integers(0, 256, (40, 56, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f'{index}.png')
  return folder


@pytest.mark.parametrize(
  ('arguments', 'parts'),
  [
    (['--config=configs/simulated.py:smoke'], ['--workdir']),
    (['--workdir=x'], ['--config']),
    (['--mode=predict', '--out=x'], ['--stack']),
    (['--mode=compare', '--out=x'], ['--methods']),
    (['--mode=submit', '--out=x'], ['--test_file']),
    (['--mode=paint'], ['paint']),
    (['--config=configs/none.py', '--workdir=x'], ['configs/none.py']),
    (['--config=configs/simulated.py', '--config.optimiser.b1=0.5', '--workdir=x'], ['optimiser']),
    (['--config=configs/simulated.py:smokey', '--workdir=x'], ['smokey']),
    (['predict'], ['predict']),
  ],
)
def test_bad_flags(arguments, parts):
  assert_one_line(command(*arguments), *parts)


def test_bad_stacks_leave_no_output(frames, tmp_path):
  out = tmp_path / 'new' / 'out'
  predict = ('--mode=predict', f'--out={out}')
  assert_one_line(command(*predict, f'--stack={tmp_path / "missing"}'), 'missing')
  (frames / '1.png').write_bytes((frames / '1.png').read_bytes()[:200])
  assert_one_line(command(*predict, f'--stack={frames}'), '1.png')
  assert not (tmp_path / 'new').exists()


def test_predict_writes_and_does_not_overwrite(frames, tmp_path):
  out = tmp_path / 'out'
  arguments = ('--mode=predict', f'--stack={frames}', f'--out={out}')
  result = command(*arguments)
  assert result.returncode == 0, result.stderr
  depth = np.load(out / 'depth.npy')
  assert depth.shape == (40, 56)
  assert depth.min() >= 0
  assert depth.max() <= 2
  residual = json.loads((out / 'summary.json').read_text())['residual_motion']
  assert residual['before'] == {'zoom_range': None, 'rms_px': None, 'frames_measured': 1}  # noise: nothing to compare
  assert residual.keys() == {'before', 'after'}
  assert_one_line(command(*arguments), str(out), '--overwrite')


def test_compare_on_what_ships(tmp_path):
  out = tmp_path / 'out'
  settings = ('--config=configs/default.py', '--config.eval.num_stacks=2', '--config.eval.pictures=1')
  result = command('--mode=compare', '--methods=a=classical,constant', *settings, f'--out={out}')
  assert result.returncode == 0, result.stderr
  names = ('summary.json', 'summary.md', 'per_image.csv', 'comparison.png', 'error_by_depth.png', 'sparsification.png')
  assert {path.name for path in out.iterdir()} == set(names)
  text = (out / 'summary.md').read_text()
  assert text in result.stdout
  assert '\n| a | these 2 stacks | 0.00' in text
  assert '\n| constant | these 2 stacks | 0.00' in text
  assert '\n## Differences to a\n' in text
  assert 'Traceback' not in result.stderr


def test_tensorflow_and_torch_are_imported_nowhere():
  """On the core path: every module, and the data set's builder."""
  code = (
    'import importlib, pathlib, sys\n'
    'for path in sorted(pathlib.Path("focal_jax").rglob("*.py")) + sorted(pathlib.Path("tfds_ddff").rglob("*.py")):\n'
    '  importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))\n'
    'print(sorted({"tensorflow", "torch"} & set(sys.modules)))\n'
  )
  result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
  assert result.stdout == '[]\n', result.stdout + result.stderr
