"""The compilation cache: where it is, who has the last word, and that something comes to lie there; and huge pages."""

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


@pytest.mark.parametrize('given', ['', 'glibc.malloc.check=0', 'glibc.malloc.hugetlb=0', 'glibc.malloc.hugetlb=1'])
def test_huge_pages_are_proposed_where_they_are_of_use(given, monkeypatch, tmp_path):
  (tmp_path / 'enabled').write_text('always [madvise] never')
  monkeypatch.setattr(backend, '_HUGE_PAGES', str(tmp_path / 'enabled'))
  monkeypatch.setattr('platform.libc_ver', lambda: ('glibc', '2.36'))
  monkeypatch.setenv('GLIBC_TUNABLES', given)
  hint = backend.huge_pages_hint()
  assert hint is None if 'hugetlb' in given else 'GLIBC_TUNABLES=glibc.malloc.hugetlb=1' in hint
  monkeypatch.setattr('platform.libc_ver', lambda: ('', ''))  # another system, or musl
  assert backend.huge_pages_hint() is None


def test_where_there_are_no_huge_pages(tmp_path):
  for text in ('always [never]', '[always] madvise never'):  # of no use, or had already
    (tmp_path / 'enabled').write_text(text)
    assert not backend._huge_pages_on_request(tmp_path / 'enabled')
  assert not backend._huge_pages_on_request(tmp_path / 'nothing')
