"""Implementations beside each other, each in a process of its own."""

import functools
import multiprocessing

import fake_contenders
import pytest

from benchmarks import harness
from benchmarks.contenders import Contender, Contest, ProcessError


def contest(make, names=('fast',)):
  return Contest([Contender(name, make) for name in names])


@pytest.mark.slow
def test_turns_alternate_between_processes(tmp_path, monkeypatch):
  monkeypatch.setattr(harness, 'TURN_S', 0.0)
  path = tmp_path / 'calls'
  make = functools.partial(fake_contenders.groups, path)
  with contest(make, ('fast', 'slow')) as processes:
    results = list(processes.measure(make(), 2, lambda text: None))
  # Each is called once when it is prepared. Of two calls in a row the second counts; odd rounds are in reverse order.
  assert path.read_text() == 2 * ('fsffssssff')
  assert [(r.case.name, r.case.implementation, len(r.seconds)) for r in results] == [
    ('first', 'fast', 2), ('first', 'slow', 2), ('second', 'fast', 2), ('second', 'slow', 2)
  ]  # fmt: skip
  for result in results:
    slower = fake_contenders.SLOWER if result.case.implementation == 'slow' else 1
    assert min(result.seconds) >= slower * fake_contenders.CALL_S
  assert not multiprocessing.active_children()


@pytest.mark.parametrize(
  ('how', 'kind', 'message'),
  [
    ('prepare', 'OSError', r'(?s)fast: .*OSError: no such device'),
    ('exit', 'exit', 'fast: its process ended with status 3'),
  ],
)
def test_what_fails_is_named(how, kind, message):
  make = functools.partial(fake_contenders.failing, how)
  with contest(make) as processes, pytest.raises(ProcessError, match=message) as error:
    list(processes.measure(make(), 1, lambda text: None))
  assert error.value.kind == kind
  assert not multiprocessing.active_children()
