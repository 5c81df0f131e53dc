"""Shared by all tests: finding real data (or skipping its tests), and caching of compiled programs."""

import gc
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

# Tests spend most of their time on compilation, much of it in LLVM's optimisation. The older fusion emitters compile in
# half the time of the newer ones, and a single core does not benefit from parallel code generation or concurrent
# thunks. Set before jax is imported, and inherited by the commands that tests run. XLA aborts on unknown flags, which
# differ between versions, so they are tried first.
FAST_COMPILATION = (  # pytest's own processes inherit them
  '--xla_backend_optimization_level=0',
  '--xla_cpu_use_fusion_emitters=false',
  '--xla_cpu_parallel_codegen_split_count=1',
  '--xla_cpu_enable_concurrency_optimized_scheduler=false',
)


def try_flags(*flags):
  """Adds XLA flags to those of this process, if it knows them all."""
  environment = {**os.environ, 'XLA_FLAGS': ' '.join((os.environ.get('XLA_FLAGS', ''), *flags)).strip()}
  command = [sys.executable, '-c', 'import jax; jax.devices()']
  known = subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0
  if known:
    os.environ.update(environment)
  return known


if FAST_COMPILATION[0] not in os.environ.get('XLA_FLAGS', '') and not try_flags(*FAST_COMPILATION):
  for one in FAST_COMPILATION:
    try_flags(one)

# Several tests, their processes and commands, and the next test run use the same networks and training steps, which XLA
# need not compile each time. Inherited as well. `make clean` deletes the folder.
KEPT = Path(__file__).parents[1] / '.pytest_cache' / 'compiled'
KEPT_BYTES = 2**31  # a larger cache, mostly of outdated programs, is deleted
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  if sum(path.stat().st_size for path in KEPT.glob('*')) > KEPT_BYTES:
    shutil.rmtree(KEPT)
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(KEPT)
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'  # most of what tests compile is small

# By default, Python looks for garbage at every thousandth new object or so; to trace a program makes hundreds of
# thousands that stay, and looking at them again and again took a sixth of the time of all tests.
gc.set_threshold(100_000)

import pytest

SHARED = Path(__file__).parents[2] / 'shared'


# What takes longest begins first, or one process waits for the other at the end (with --no-loadscope-reorder).
SLOWEST = (
  'test_resume.py', 'test_parallel.py', 'test_recipes.py',  # of the slow tests
  'test_loop.py', 'test_main.py', 'test_api.py', 'test_refinement.py', 'test_classical_predictor.py', 'test_docs.py',
  'test_stacks.py', 'test_harness.py', 'test_scenes.py', 'test_predict_unaligned.py', 'test_variants.py',
  'test_sweep.py', 'test_aifdepthnet.py', 'test_measured.py', 'test_parity.py', 'test_evaluator.py',
  'test_baselines.py', 'test_predict.py', 'test_warp.py', 'test_validation.py', 'test_wheel.py', 'test_notebooks.py',
  'test_write_stacks.py',
)  # fmt: skip


def pytest_collection_modifyitems(items):
  place = {name: index for index, name in enumerate(SLOWEST)}
  items.sort(key=lambda item: place.get(item.path.name, len(SLOWEST)))


# jaxtyping keeps compiled files of its own, not only of what it checks but of all that is imported meanwhile. Packages
# that are imported before need not be compiled again, which takes seconds.
IMPORTED_FIRST = (
  'beartype', 'grain', 'matplotlib.pyplot', 'ml_collections.config_flags', 'optax', 'orbax.checkpoint', 'scipy.ndimage',
  'scipy.signal', 'tensorflow_datasets',
)  # fmt: skip


def pytest_collection():  # of those that run tests; with xdist, the process that hands them out does not come here
  for name in IMPORTED_FIRST:
    importlib.import_module(name)


def pytest_collection_finish():
  gc.freeze()  # what was imported stays


@pytest.fixture(scope='session', autouse=True)
def freed_memory_goes_back():
  """Hundreds of programs share a process here, and what one of them freed is of no use to the others."""
  from focal_jax import backend

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(backend, 'keep_freed_memory', lambda: None)
    yield


@pytest.fixture(scope='session')
def shared():
  """Folder with real data and parity fixtures, which lie beside the project and not in it."""
  if not SHARED.is_dir():
    pytest.skip(f'{SHARED.name}/ with real data and parity fixtures is not beside the project')
  return SHARED
