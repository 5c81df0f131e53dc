"""The command line: modes, words and flags; errors, which are one line on standard error with status 2 and leave no
output; and the packages and systems that prediction needs.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def command(*arguments):
  return programs.run('-m', 'focal_jax.main', *arguments)


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


BAD_FLAGS = (
  (['--config=configs/simulated.py:smoke'], ['--workdir']),
  (['--workdir=x'], ['--config']),
  (['--mode=predict', '--out=x'], ['--stack']),
  (['--mode=compare', '--out=x'], ['--methods']),
  (['--mode=submit', '--out=x'], ['--test_file']),
  (['--mode=paint'], ['paint']),
  (['--config=configs/none.py', '--workdir=x'], ['configs/none.py']),
  (['--config=configs/simulated.py', '--config.optimiser.b1=0.5', '--workdir=x'], ['optimiser']),
  (['--config=configs/simulated.py:smokey', '--workdir=x'], ['smokey']),
  (['predict'], ['predict needs --stack', 'predict --help']),
  (['paint'], ['paint', 'predict, train, evaluate']),
  (['predict', 'stack'], ['predict needs --out']),
  (['predict', '--stack=', '--out=o'], ['predict needs --stack']),
  (['predict', 'stack', '--out='], ['predict needs --out']),
  (['predict', 'a', '--stack=b', '--out=x'], ['--stack', "'a'"]),
  (['predict', 'a', '--out=x', '--align=False'], ['align', 'measured', 'network', 'metadata', 'off']),
  (['predict', 'a', '--out=x', '--config=simulated'], ['--config', 'predict does not take']),
  (['--mode=predict', '--stack=a', '--out=x', '--test_file=y'], ['--test_file', 'submit', 'predict does not take']),
  (['submit', 'a', 'b', '--out=x'], ["'b'", '--test_file']),
  (['train', 'simulated', '--workdir=x'], ["'simulated'", 'flags only']),
  (['export', '--align=measured', '--out=x'], ['measured', 'network, metadata or off']),
  (['train', '--config=simulate', '--workdir=x'], ["'simulate'", 'baselines/dfv', 'simulated']),
  (['sweep', '--config=configs/simulated.py', '--workdir=x'], ['no function sweep(add)']),
  (['evaluate', '--out=x', '--outt=y'], ['outt']),
)


@pytest.mark.parametrize(('arguments', 'parts'), BAD_FLAGS)
def test_bad_flags(arguments, parts):
  assert_one_line(command(*arguments), *parts)


HELP = """
import sys
sys.argv = ['focal-jax', *sys.argv[1:]]
from focal_jax.main import run
run()
assert not {'jax', 'flax', 'scipy', 'matplotlib', 'tensorflow_datasets'} & set(sys.modules)
"""


def help_of(*arguments):
  command = [sys.executable, '-c', HELP, *arguments]
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
  assert max(map(len, result.stdout.splitlines())) <= 100
  return result.stdout


def test_help_shows_the_modes_without_waiting_for_jax():
  text = help_of('--help')
  assert text == help_of()
  for mode in ('predict', 'train', 'evaluate', 'compare', 'submit', 'export', 'convert', 'simulate', 'sweep'):
    assert len([line for line in text.splitlines() if line.split()[:1] == [mode]]) == 1
  assert 'focal-jax MODE --help' in text
  assert '--stack' not in text


def test_help_of_a_mode_shows_its_flags():
  text = help_of('predict', '--help')
  assert text == help_of('--mode=predict', '--help') == help_of('predict', 'photos', '-h')
  flags = {line.split()[0].partition('=')[0] for line in text.splitlines() if line.startswith('  --')}
  assert flags >= {'--stack', '--out', '--align', '--method', '--weights', '--max_side', '--overwrite'}
  assert not flags & {'--workdir', '--config', '--profile', '--methods', '--test_file', '--arguments'}
  assert 'usage: focal-jax predict FOLDER --out=FOLDER' in text
  assert '--rgbd' in help_of('simulate', '--help')


WORDS = """
import dataclasses
from absl import flags
from focal_jax import main

def show():
  value = flags.FLAGS['config'].value
  given = [(name, flags.FLAGS[name].value) for name in ('stack', 'methods', 'weights', 'test_file', 'out')]
  print([pair for pair in given if pair[1] is not None], value and (value.optimizer.learning_rate, value.steps))

main.MODES.update({name: dataclasses.replace(mode, run=show) for name, mode in main.MODES.items()})
main.run()
"""


WORDS_AND_FLAGS = (
  ('predict photos --out=o', "[('stack', ['photos']), ('out', 'o')] None"),
  ('--out o predict photos', "[('stack', ['photos']), ('out', 'o')] None"),
  ('--mode=predict --stack=photos --out=o', "[('stack', ['photos']), ('out', 'o')] None"),
  ('--mode=predict photos --out=o', "[('stack', ['photos']), ('out', 'o')] None"),
  ('predict a.jpg b.jpg --out=o', "[('stack', ['a.jpg', 'b.jpg']), ('out', 'o')] None"),
  ('predict --stack=a.jpg,b.jpg --out=o', "[('stack', ['a.jpg', 'b.jpg']), ('out', 'o')] None"),
  ('compare shipped classical --out=o', "[('methods', ['shipped', 'classical']), ('out', 'o')] None"),
  ('submit test.h5 --out=o', "[('test_file', 'test.h5'), ('out', 'o')] None"),
  ('export --out=o', "[('out', 'o')] None"),
  ('export a.npz --out=o', "[('weights', 'a.npz'), ('out', 'o')] None"),
  ('convert a.pth --out=o', "[('weights', 'a.pth'), ('out', 'o')] None"),
  ('--config=configs/simulated.py:smoke --workdir=w', '[] (0.0001, 6)'),
  ('train --config=simulated:smoke --config.optimizer.learning_rate=1e-3 --workdir=w', '[] (0.001, 6)'),
  ('train --config baselines/dfv --config.steps 7 --workdir w', '[] (0.0001, 7)'),
  ('sweep --config=ablations/stem:smoke --workdir=w', '[] (0.0001, 4)'),
)


@pytest.mark.parametrize(('arguments', 'expected'), WORDS_AND_FLAGS)
def test_words_and_flags(arguments, expected):
  result = programs.run('-c', WORDS, *arguments.split())
  assert result.stdout == f'{expected}\n', result.stderr


WITHOUT = """
import importlib.resources, os, shutil, signal, sys
modules, names, arguments = (part.split(',') for part in sys.argv[1:4])
if names != ['']:  # what others wrote for this system may use all of it
  import flax.linen, jax.export, matplotlib.figure, PIL.Image, scipy.ndimage, tqdm
for name in modules:
  sys.modules[name] = None  # importing it fails
for name in filter(None, names):
  for module in (os, signal):
    if hasattr(module, name):
      delattr(module, name)
if 'O_NONBLOCK' in names:
  shutil._use_fd_functions = False  # as it is where O_NONBLOCK is missing: rmtree of Python 3.13 wants it
for room in ('', '.align', '.data', '.files', '.focus', '.models', '.prediction', '.simulate', '.evaluation'):
  package = importlib.import_module(f'focal_jax{room}')
  for path in sorted(importlib.resources.files(package).iterdir()):
    if path.suffix == '.py' and path.stem not in ('__init__', 'pipeline', 'submission'):
      importlib.import_module(f'focal_jax{room}.{path.stem}')
sys.argv = ['focal-jax', 'predict', *arguments, '--method=classical']
from focal_jax.main import run
run()
"""
TRAINING = 'grain,array_record,tensorflow_datasets,h5py,OpenEXR,optax,orbax,importlib_resources,etils'
UNIX = 'resource,fcntl,termios,pwd,grp,pty,tty,syslog,readline'
UNIX_CALLS = (
  'preadv,pread,pwritev,sched_getaffinity,sched_setaffinity,fork,killpg,getuid,geteuid,getpgid,setsid,mkfifo,sysconf,'
  'uname,fchmod,fchown,chown,statvfs,execve,O_CLOEXEC,O_NONBLOCK,O_NOFOLLOW,SIGKILL,SIGHUP,SIGALRM,SIGUSR1,alarm'
)


@pytest.mark.parametrize(
  ('modules', 'names'),
  [
    pytest.param(TRAINING, '', id='packages'),
    pytest.param(UNIX, UNIX_CALLS, id='system', marks=pytest.mark.slow),
  ],
)
def test_prediction_needs_no_training_packages_and_no_unix(modules, names, frames, tmp_path):
  """Packages that only training needs, and modules that Windows lacks."""
  arguments = f'{frames},--out={tmp_path / "out"}'
  command = [sys.executable, '-c', WITHOUT, modules, names, arguments]
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert result.returncode == 0, result.stderr
  assert np.load(tmp_path / 'out' / 'depth.npy').shape == (40, 56)


def test_training_names_the_missing_package(tmp_path):
  code = "import sys; sys.modules['grain'] = None; from focal_jax.main import run; run()"
  result = programs.run('-c', code, 'train', '--config=simulated:smoke', f'--workdir={tmp_path / "run"}')
  assert_one_line(result, "'grain'", "pip install 'focal_jax[train]'")
  assert not (tmp_path / 'run').exists()


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
  assert re.search(r'^\d\d-\d\d \d\d:\d\d:\d\d stack: 3 frames of 56 x 40 px$', result.stderr, re.MULTILINE)
  depth = np.load(out / 'depth.npy')
  assert depth.shape == (40, 56)
  assert depth.min() >= 0
  assert depth.max() <= 2
  residual = json.loads((out / 'summary.json').read_text())['residual_motion']
  assert set(residual['before'].values()) == {None, 1}  # noise: one frame, and nothing to compare
  assert residual.keys() == {'before', 'after'}
  assert_one_line(command(*arguments), str(out), '--overwrite')


def test_compare_on_included_stacks(tmp_path):
  out = tmp_path / 'out'
  settings = ('--config=configs/default.py', '--config.eval.num_stacks=2', '--config.eval.pictures=1')
  result = command('--mode=compare', '--methods=a=classical,constant', *settings, f'--out={out}')
  assert result.returncode == 0, result.stderr
  names = ('summary.json', 'summary.md', 'per_image.csv', 'comparison.png', 'error_by_depth.png', 'sparsification.png')
  assert {path.name for path in out.iterdir()} == set(names)
  text = (out / 'summary.md').read_text()
  assert re.search(r'\n +mse +rms .*\na +0\.00.*\n(.*\n)?constant +0\.00', result.stdout)
  assert max(map(len, result.stdout.splitlines())) <= 100
  assert '\n| a | these 2 stacks | 0.00' in text
  assert '\n| constant | these 2 stacks | 0.00' in text
  assert '\n## Differences to a\n' in text
  assert 'Traceback' not in result.stderr


def test_no_module_imports_tensorflow_or_torch():
  """On the core path: every module, and the data set's builder."""
  code = (
    'import importlib, pathlib, sys\n'
    'for path in sorted(pathlib.Path("focal_jax").rglob("*.py")) + sorted(pathlib.Path("tfds_ddff").rglob("*.py")):\n'
    '  importlib.import_module(".".join(path.with_suffix("").parts).removesuffix(".__init__"))\n'
    'print(sorted({"tensorflow", "torch"} & set(sys.modules)))\n'
  )
  result = programs.run('-c', code)
  assert result.stdout == '[]\n', result.stdout + result.stderr
