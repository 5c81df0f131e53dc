"""Contenders that need neither JAX's compiler nor PyTorch, for processes of their own."""

import os
import time

from benchmarks.harness import Case

SLOWER = 2  # times as slow as 'fast'
CALL_S = 0.02


def _call(name, path):
  def call():
    path.open('a').write(name)
    time.sleep(CALL_S * (SLOWER if name == 's' else 1))

  return call


def groups(path):
  """Two groups; 'fast' and 'slow' write f and s into `path` in each call."""
  for name in ('first', 'second'):
    yield [Case('warp', name, label, '[1]', lambda label=label: _call(label[0], path)) for label in ('fast', 'slow')]


def failing(how):
  """A case that fails: 'prepare' raises, 'exit' ends the process in its first call."""

  def prepare():
    if how == 'prepare':
      raise OSError('no such device')
    return lambda: os._exit(3)

  yield [Case('warp', 'a', 'fast', '[1]', prepare)]
