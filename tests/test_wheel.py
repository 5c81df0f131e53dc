"""The installed package: content of its wheel, and that it predicts next to a foreign package `configs`."""

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import programs
import pytest
from PIL import Image

import focal_jax

ROOT = Path(__file__).parents[1]
SOURCES = ('focal_jax', 'configs', 'tfds_ddff', 'examples', 'weights')
FILES = ('pyproject.toml', 'README.md', 'LICENSE', 'NOTICE')


def requirements(name):
  """Without comments and the files that it includes."""
  lines = (line.partition('#')[0].strip() for line in (ROOT / name).read_text().splitlines())
  return {line for line in lines if line and not line.startswith('-r')}


def pip(*arguments, folder):
  command = [sys.executable, '-m', 'pip', *map(str, arguments)]
  done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
  assert done.returncode == 0, done.stdout + done.stderr


def run(*arguments, folder, site):
  """Standard output of a program that has to succeed, with the packages in `site`."""
  done = programs.run(*arguments, cwd=folder, environment={'PYTHONPATH': str(site)})
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """Built from a copy, so that nothing is left in the checkout and nothing that was left there gets in."""
  for package in ('setuptools', 'pip'):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f'building and installing a wheel needs {package}')
  version = importlib.metadata.version('setuptools')
  if int(version.partition('.')[0]) < 77:
    pytest.skip(f'building the wheel needs setuptools 77, found {version}')
  folder = tmp_path_factory.mktemp('source')
  for name in SOURCES:
    shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in FILES:
    shutil.copy(ROOT / name, folder)
  pip('wheel', '--quiet', '--no-deps', '--no-build-isolation', '--no-index', '--wheel-dir=dist', '.', folder=folder)
  (path,) = (folder / 'dist').glob('*.whl')
  return path


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory):
  """A folder with the package, as site-packages has it, and another package called `configs`."""
  site = tmp_path_factory.mktemp('site')
  pip('install', '--quiet', '--no-deps', '--no-index', '--no-compile', f'--target={site}', wheel, folder=site)
  (site / 'configs').mkdir()
  (site / 'configs' / '__init__.py').write_text("OWNER = 'somebody else'\n")
  (site / 'configs' / 'default.py').write_text("raise RuntimeError('not a recipe of ours')\n")
  return site


def test_the_wheel_holds_all_and_nothing_of_other_names(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = set(archive.namelist())
  assert {name.split('/')[0].partition('-')[0] for name in names} == {'focal_jax', 'tfds_ddff'}
  places = {'configs': 'focal_jax/recipes', 'examples': 'focal_jax/examples', 'weights': 'focal_jax/weights'}
  missing = [
    path.relative_to(ROOT).as_posix()
    for source in SOURCES
    for path in (ROOT / source).rglob('*')
    if path.suffix in ('.py', '.typed', '.html', '.npz', '.csv', '.h5', '.jpg')
    and f'{places.get(source, source)}/{path.relative_to(ROOT / source).as_posix()}' not in names
  ]
  assert missing == []


def test_the_version_stands_once(wheel):
  citation = (ROOT / 'CITATION.cff').read_text()
  assert wheel.name.startswith(f'focal_jax-{focal_jax.__version__}-')
  assert re.search(r'^version: (.*)$', citation, re.MULTILINE)[1] == focal_jax.__version__
  changes = (ROOT / 'CHANGELOG.md').read_text()
  assert re.search(r'^## (.*)$', changes, re.MULTILINE)[1] == focal_jax.__version__


def test_it_predicts_from_another_folder(installed, tmp_path):
  (tmp_path / 'stack').mkdir()
  rng = np.random.default_rng(0)
  for index in range(3):
    Image.fromarray(rng.integers(0, 256, (40, 56, 3), np.uint8)).save(tmp_path / 'stack' / f'{index}.png')
  program = installed / 'bin' / 'focal-jax'
  run(program, 'predict', 'stack', '--method=classical', '--out=out', folder=tmp_path, site=installed)
  depth = np.load(tmp_path / 'out' / 'depth.npy')
  assert depth.shape == (40, 56)
  assert np.ptp(depth) > 0


LOOK = """
import configs, importlib.util, os, sys
import focal_jax
from focal_jax.data.sources import ddff_examples
from focal_jax.files.shipped import find_recipe, recipe_names, shipped_file

site = os.environ['PYTHONPATH']
assert focal_jax.__file__.startswith(site)
assert focal_jax.load().name.startswith(site)
assert str(shipped_file('weights/simulated.npz')).startswith(site)
assert len(ddff_examples()) == 5
for name in recipe_names():
  path = find_recipe(f'configs/{name}.py')
  assert path == find_recipe(name) and path.startswith(site), path
  spec = importlib.util.spec_from_file_location('recipe', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  assert module.get_config().steps >= 0
  print(name)
assert configs.OWNER == 'somebody else' and sys.modules['configs'] is configs
assert configs.__file__.startswith(site)
"""


def test_recipes_weights_and_examples_are_found(installed, tmp_path):
  names = run('-c', LOOK, folder=tmp_path, site=installed).split()
  ours = {path.relative_to(ROOT / 'configs').with_suffix('').as_posix() for path in (ROOT / 'configs').rglob('*.py')}
  assert set(names) == {name for name in ours if not name.endswith('__init__')}


@pytest.mark.slow
def test_a_recipe_on_the_command_line(installed, tmp_path):
  recipe = 'configs/ablations/networks.py:smoke'
  main, places = ('-m', 'focal_jax.main'), {'folder': tmp_path, 'site': installed}
  flags = (f'--config={recipe}', '--workdir=sweep', '--seeds=1', '--dry_run')
  lines = run(*main, 'sweep', *flags, **places).splitlines()
  assert len(lines) == 35  # seven networks, each trained and then measured in four ways
  assert not (tmp_path / 'sweep').exists()
  run(*main, 'simulate', '--config=simulated:smoke', '--count=1', '--out=stacks', **places)
  assert (tmp_path / 'stacks').is_dir()


def test_the_dependencies_of_package_and_checkout_are_the_same():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  extras = project['optional-dependencies']
  assert {*project['dependencies'], *extras['train']} == requirements('requirements.txt')
  assert set(extras['docs']) == requirements('requirements-docs.txt')
  assert set(extras['dev']) - {'focal_jax[train,docs]'} == requirements('requirements-dev.txt')
  assert not set(project['dependencies']) & set(extras['train'])
  (jax,) = (one for one in project['dependencies'] if re.match(r'jax\b', one))
  for device in ('cuda12', 'cuda13', 'tpu'):
    assert extras[device] == [jax.replace('jax', f'jax[{device}]')]
