"""The compilation cache: its folder, precedence of settings, and that it is used; and freed memory."""

import json
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from focal_jax import backend, command_line

PROGRAM = """
import json, jax
from focal_jax.backend import use_compilation_cache
folder = use_compilation_cache()
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((3, 3)))
print(json.dumps(folder and str(folder)))
"""


def folder_of_program(**environment):
  base = {name: value for name, value in os.environ.items() if not name.startswith('JAX_')}
  base |= {'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(Path(__file__).parents[1])}
  command = [sys.executable, '-c', PROGRAM]
  done = subprocess.run(command, env=base | environment, check=True, capture_output=True, text=True)
  found = json.loads(done.stdout)
  return found and Path(found)


def test_kept_in_the_users_cache(tmp_path):
  folder = folder_of_program(XDG_CACHE_HOME=str(tmp_path))
  assert folder.parent == tmp_path / 'focal_jax'
  assert any(folder.iterdir())


def test_kept_in_the_home_by_default(tmp_path):
  folder = folder_of_program(HOME=str(tmp_path), XDG_CACHE_HOME='relative/paths/do/not/count')
  assert folder.parent == tmp_path / '.cache' / 'focal_jax'


@pytest.mark.parametrize(
  ('environment', 'expected'),
  [({'JAX_COMPILATION_CACHE_DIR': 'chosen'}, 'chosen'), ({'JAX_ENABLE_COMPILATION_CACHE': 'false'}, None)],
)
def test_settings_of_jax_take_precedence(tmp_path, environment, expected):
  if expected:
    environment = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / expected)}
  folder = folder_of_program(XDG_CACHE_HOME=str(tmp_path / 'home'), **environment)
  assert folder == (tmp_path / expected if expected else None)
  assert not (tmp_path / 'home').exists()


def test_a_damaged_cache_is_one_line(monkeypatch, caplog):
  monkeypatch.setattr(backend, 'use_compilation_cache', lambda: Path('the cache'))
  shown = []

  def main():
    for name in 'ab':  # as JAX 0.10 says it
      warnings.warn(f"Error reading persistent compilation cache entry for 'jit_{name}': incomplete", stacklevel=1)
    warnings.warn('something else', stacklevel=1)

  with warnings.catch_warnings():
    warnings.simplefilter('always')
    monkeypatch.setattr(warnings, 'showwarning', lambda message, *_: shown.append(str(message)))
    command_line._with_cache(main)
  assert shown == ['something else']
  (line,) = caplog.messages
  assert 'compilation cache cannot be used' in line
  assert line.endswith('the cache')


def test_a_home_that_cannot_be_written_to_is_no_error(tmp_path):
  (tmp_path / 'file').write_text('')
  assert folder_of_program(XDG_CACHE_HOME=str(tmp_path / 'file')) is None


def test_machines_that_share_a_home_do_not_share_programs(monkeypatch):
  here = backend._processor()
  flags = 'flags\t\t: of another machine\n'
  monkeypatch.setattr(Path, 'read_text', lambda self: flags)
  assert backend._processor() != here


@pytest.mark.skipif(not hasattr(os, 'sched_setaffinity'), reason='the system cannot restrict a process to some cores')
def test_programs_for_one_core_are_not_those_for_all(tmp_path):
  cores = os.sched_getaffinity(0)
  if len(cores) == 1:
    pytest.skip('one core only')
  folder = folder_of_program(XDG_CACHE_HOME=str(tmp_path))
  try:
    os.sched_setaffinity(0, {min(cores)})  # inherited by the program
    assert folder_of_program(XDG_CACHE_HOME=str(tmp_path)) != folder
  finally:
    os.sched_setaffinity(0, cores)


KEEP_FREED_MEMORY = backend.keep_freed_memory  # which conftest replaces
FAULTS = """
import resource, sys
from focal_jax import backend
if sys.argv[2:]:
  backend.keep_freed_memory()
def block():
  b'1' * int(sys.argv[1])
block()
block()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
block()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the allocator is not that of glibc')
def test_freed_memory_is_used_again():
  def faults(*words):
    command = [sys.executable, '-c', FAULTS, str(1 << 26), *words]
    environment = {name: value for name, value in os.environ.items() if name != 'GLIBC_TUNABLES'}
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

  assert faults('keep') < 100
  assert faults() > 1000  # in pages of 4 kB or of 64 kB


def test_other_allocators_are_left_alone(monkeypatch):
  monkeypatch.setattr('ctypes.CDLL', lambda name: object())
  KEEP_FREED_MEMORY()
