"""The compilation cache: where it is, who has the last word, and that something comes to lie there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from focal_jax import backend

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


def test_in_the_home_without_another_word(tmp_path):
  folder = folder_of_program(HOME=str(tmp_path), XDG_CACHE_HOME='relative/paths/do/not/count')
  assert folder.parent == tmp_path / '.cache' / 'focal_jax'


@pytest.mark.parametrize(
  ('environment', 'expected'),
  [({'JAX_COMPILATION_CACHE_DIR': 'chosen'}, 'chosen'), ({'JAX_ENABLE_COMPILATION_CACHE': 'false'}, None)],
)
def test_jax_is_told_first(tmp_path, environment, expected):
  if expected:
    environment = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / expected)}
  folder = folder_of_program(XDG_CACHE_HOME=str(tmp_path / 'home'), **environment)
  assert folder == (tmp_path / expected if expected else None)
  assert not (tmp_path / 'home').exists()


def test_a_home_that_cannot_be_written_to_is_no_error(tmp_path):
  (tmp_path / 'file').write_text('')
  assert folder_of_program(XDG_CACHE_HOME=str(tmp_path / 'file')) is None


def test_machines_that_share_a_home_do_not_share_programs(monkeypatch):
  here = backend._processor()
  flags = 'flags\t\t: of another machine\n'
  monkeypatch.setattr(Path, 'read_text', lambda self: flags)
  assert backend._processor() != here


RESTARTED = """
import os, sys
from focal_jax.backend import use_huge_pages
print(os.getpid(), flush=True)
use_huge_pages()
print(os.environ.get('GLIBC_TUNABLES', ''), *sys.argv[1:])
"""


@pytest.mark.parametrize('given', ['', 'glibc.malloc.check=0', 'glibc.malloc.hugetlb=0'])
def test_a_program_restarts_once_for_huge_pages(given):
  environment = {name: value for name, value in os.environ.items() if name != 'GLIBC_TUNABLES'}
  environment |= {'PYTHONPATH': str(Path(__file__).parents[1])} | ({'GLIBC_TUNABLES': given} if given else {})
  command = [sys.executable, '-c', RESTARTED, 'a b', '--flag=1']
  *pids, last = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
  assert len(set(pids)) == 1  # the same process: who started it can stop it
  again = backend._huge_pages_on_request(Path(backend._HUGE_PAGES)) and 'hugetlb' not in given
  assert len(pids) == 1 + again
  asked = 'glibc.malloc.hugetlb=1' if again else ''
  assert last == f'{":".join(filter(None, (given, asked)))} a b --flag=1'


def test_where_there_are_no_huge_pages(tmp_path):
  for text in ('always [never]', '[always] madvise never'):  # of no use, or had already
    (tmp_path / 'enabled').write_text(text)
    assert not backend._huge_pages_on_request(tmp_path / 'enabled')
  assert not backend._huge_pages_on_request(tmp_path / 'nothing')
