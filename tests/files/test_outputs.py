"""Result folders: complete or absent, and existing files are never overwritten."""

import errno
import signal
import tempfile
from pathlib import Path

import programs
import pytest

from focal_jax.errors import InputError, RunError
from focal_jax.files.outputs import check_output, result_folder, staging


def contents(folder):
  """Every path below `folder`; of files also the text."""
  return {str(p.relative_to(folder)): p.read_text() if p.is_file() else None for p in sorted(folder.rglob('*'))}


def test_results_appear_when_the_block_ends(tmp_path):
  out = tmp_path / 'new' / 'results'
  with result_folder(out, overwrite=False) as folder:
    (folder / 'depth.txt').write_text('1')
    (folder / 'frames').mkdir()
    (folder / 'frames' / '0.txt').write_text('2')
    assert not (out / 'depth.txt').exists()  # nothing half-written under its final name
  assert contents(out) == {'depth.txt': '1', 'frames': None, 'frames/0.txt': '2'}


def test_an_empty_folder_may_be_used(tmp_path):
  with result_folder(tmp_path, overwrite=False) as folder:
    (folder / 'depth.txt').write_text('1')
  assert contents(tmp_path) == {'depth.txt': '1'}


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_failure_leaves_nothing(tmp_path, error):
  out = tmp_path / 'new' / 'results'

  def fail():
    with result_folder(out, overwrite=False) as folder:
      (folder / 'frames').mkdir()
      (folder / 'frames' / '0.txt').write_text('2')
      raise error('half way')

  with pytest.raises(error, match='half way'):
    fail()
  assert contents(tmp_path) == {}


def test_failure_leaves_folders_that_were_there(tmp_path):
  (tmp_path / 'old').mkdir()

  def fail(out):
    with result_folder(out, overwrite=False):
      raise ValueError

  for out in (tmp_path / 'old', tmp_path / 'old' / 'new'):
    with pytest.raises(ValueError):
      fail(out)
    assert contents(tmp_path) == {'old': None}


def test_failure_leaves_parents_that_something_else_uses(tmp_path):
  def fail():
    with result_folder(tmp_path / 'new' / 'results', overwrite=False):
      (tmp_path / 'new' / 'note.txt').write_text('of somebody else')
      raise ValueError

  with pytest.raises(ValueError):
    fail()
  assert contents(tmp_path) == {'new': None, 'new/note.txt': 'of somebody else'}


def test_refuses_a_folder_that_holds_something(tmp_path):
  (tmp_path / 'note.txt').write_text('mine')
  with pytest.raises(InputError, match='already holds files'), result_folder(tmp_path, overwrite=False):
    pytest.fail('the block must not run')
  assert contents(tmp_path) == {'note.txt': 'mine'}


def test_refuses_a_file(tmp_path):
  (tmp_path / 'results').write_text('mine')
  for overwrite in (False, True):
    with pytest.raises(InputError, match='is a file'), result_folder(tmp_path / 'results', overwrite):
      pytest.fail('the block must not run')
  assert contents(tmp_path) == {'results': 'mine'}


def test_refuses_what_cannot_be_made(tmp_path):
  (tmp_path / 'note.txt').write_text('mine')
  out = tmp_path / 'note.txt' / 'results'
  with pytest.raises(InputError, match=r'cannot be written to.*expected'), result_folder(out, overwrite=False):
    pytest.fail('the block must not run')
  assert contents(tmp_path) == {'note.txt': 'mine'}


def test_staging_goes_and_leaves_what_was_moved_out(tmp_path):
  with staging(tmp_path / 'kept') as stage:
    (stage / 'a.txt').write_text('1')
    (stage / 'b.txt').write_text('2')
    (stage / 'a.txt').replace(tmp_path / 'kept' / 'a.txt')
  with staging(tmp_path / 'new' / 'unused'):
    pass
  assert contents(tmp_path) == {'kept': None, 'kept/a.txt': '1'}


def test_overwrite_replaces_its_own_and_keeps_the_others(tmp_path):
  (tmp_path / 'frames').mkdir()
  (tmp_path / 'frames' / '0.txt').write_text('old')
  (tmp_path / 'frames' / 'note.txt').write_text('mine')
  (tmp_path / 'note.txt').write_text('mine')
  with result_folder(tmp_path, overwrite=True) as folder:
    (folder / 'frames').mkdir()
    (folder / 'frames' / '0.txt').write_text('new')
    (folder / 'depth.txt').write_text('new')
  assert contents(tmp_path) == {
    'depth.txt': 'new',
    'frames': None,
    'frames/0.txt': 'new',
    'frames/note.txt': 'mine',
    'note.txt': 'mine',
  }


def test_failure_while_overwriting_changes_nothing(tmp_path):
  (tmp_path / 'depth.txt').write_text('old')

  def fail():
    with result_folder(tmp_path, overwrite=True) as folder:
      (folder / 'depth.txt').write_text('new')
      raise ValueError

  with pytest.raises(ValueError):
    fail()
  assert contents(tmp_path) == {'depth.txt': 'old'}


def test_check_output_accepts_new_and_empty_folders(tmp_path):
  check_output(tmp_path, overwrite=False)
  check_output(tmp_path / 'new', overwrite=False)
  assert contents(tmp_path) == {}


@pytest.mark.parametrize(
  ('error', 'reason'),
  [
    (OSError(errno.ENOSPC, 'No space left on device'), r'.*No space left on device'),
    (OSError('200000 requested and 16352 written'), r'.*partly written: the disk is probably full'),  # by numpy.save
  ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, error, reason):
  out = tmp_path / 'out'

  def write():
    with result_folder(out, overwrite=False) as folder:
      (folder / 'depth.npy').write_text('half')
      raise error

  with pytest.raises(RunError, match=rf'out: cannot be written \({reason}\); nothing was changed there'):
    write()
  assert not out.exists()


STOPPED = """
import gc, os, signal, sys
from pathlib import Path
from focal_jax.command_line import run_program
from focal_jax.files.outputs import result_folder

# A shell that starts the tests in the background has them ignore SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

def main(argv):
  with result_folder(Path(argv[1]), overwrite=False) as folder:
    (folder / 'half').write_text('half')
    send = lambda *_: os.kill(os.getpid(), getattr(signal, argv[2]))
    if argv[3] == 'in a callback of the garbage collector':
      gc.callbacks.append(lambda phase, _: phase == 'stop' and send())
      gc.collect()
      gc.callbacks.clear()
      signal.pause()
    try:
      send()
      signal.pause()
    except BaseException:
      if argv[3] == 'in an import':
        raise ImportError('while initializing the extension')
      if argv[3] != 'in an import that is not needed':
        raise
    signal.pause()

run_program(main, 'program')
"""


STOPPED_AGAIN = """
import os, shutil, signal, sys, time
from pathlib import Path
from focal_jax.command_line import run_program
from focal_jax.files.outputs import result_folder

rmtree = shutil.rmtree

def slow(path):
  for _ in range(3):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.3)
  rmtree(path)

def main(argv):
  shutil.rmtree = slow
  with result_folder(Path(argv[1]), overwrite=False) as folder:
    (folder / 'half').write_text('half')
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()

run_program(main, 'program')
"""


@pytest.mark.skipif(not hasattr(signal, 'pause'), reason='no signals as Unix has them')
@pytest.mark.parametrize(('name', 'said'), [('SIGTERM', ''), ('SIGINT', 'program: interrupted\n')])
@pytest.mark.parametrize(
  'where', ['anywhere', 'in an import', 'in an import that is not needed', 'in a callback of the garbage collector']
)
def test_a_program_that_is_stopped_leaves_nothing(tmp_path, name, said, where):
  done = programs.run('-c', STOPPED, tmp_path / 'out', name, where, timeout=60)
  assert done.returncode == 128 + getattr(signal, name), done.stderr
  assert done.stderr == said
  assert not (tmp_path / 'out').exists()


def test_results_are_moved_as_a_whole(tmp_path, monkeypatch):
  replace = Path.replace

  def interrupted(path, target):
    signal.raise_signal(signal.SIGINT)
    return replace(path, target)

  def write():
    with result_folder(tmp_path / 'out', overwrite=False) as folder:
      for n in range(3):
        (folder / f'{n}.txt').write_text('')
      monkeypatch.setattr(Path, 'replace', interrupted)

  handler = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with pytest.raises(KeyboardInterrupt):
      write()
  finally:
    signal.signal(signal.SIGINT, handler)
  assert sorted(contents(tmp_path / 'out')) == ['0.txt', '1.txt', '2.txt']


def test_what_removes_results_is_not_interrupted(tmp_path):
  """By a second signal."""
  done = programs.run('-c', STOPPED_AGAIN, tmp_path / 'out', timeout=60)
  assert (done.returncode, done.stderr) == (128 + signal.SIGTERM, '')
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['n' * 300, 'file/results'])
def test_folders_that_cannot_be_made_are_reported_before_the_work(tmp_path, name):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match=r'cannot be written to.*expected a writable folder') as caught:
    check_output(tmp_path / name, overwrite=False)
  assert '\n' not in str(caught.value)


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
  (tmp_path / 'locked').mkdir()
  make = tempfile.TemporaryFile

  def refused(dir):
    if dir == tmp_path / 'locked':
      raise OSError(errno.EROFS, 'Read-only file system')
    return make(dir=dir)

  monkeypatch.setattr(tempfile, 'TemporaryFile', refused)
  with pytest.raises(
    InputError, match=r'locked/a/b: cannot be written to because .*locked cannot be \(Read-only file system\), expected'
  ):
    check_output(tmp_path / 'locked' / 'a' / 'b', overwrite=False)
  check_output(tmp_path / 'a' / 'b', overwrite=False)
