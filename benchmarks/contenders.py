"""Measures implementations beside each other, each in a process of its own, in turns.

In one process the threads and the memory of JAX and PyTorch disturb each other. Here the process of an implementation
holds its prepared calls and waits at a pipe while another one computes. Even rounds take the turns in one order, odd
rounds in the other.
"""

import contextlib
import dataclasses
import functools
import gc
import multiprocessing
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import jax

from benchmarks import harness
from benchmarks.harness import Case, Result, Turn
from focal_jax import backend

KEPT = ', memory kept'  # suffix of implementations whose process keeps freed memory
Groups = Iterable[Sequence[Case]]
_STOP_S = 20.0


@dataclasses.dataclass(frozen=True)
class Contender:
  """An implementation, for a process of its own.

  Attributes:
    name: `Case.implementation` of its cases.
    make: called in the process: the same groups of cases as here, of which it prepares its own. Picklable.
    keep_freed_memory: whether the process keeps freed memory (`backend.keep_freed_memory`).
  """

  name: str
  make: Callable[[], Groups]
  keep_freed_memory: bool = False


class _Cases:
  """What a process answers: the cases of one group at a time."""

  def __init__(self, contender: Contender):
    self._name, self._groups = contender.name, iter(contender.make())
    self._cases: dict[str, Case] = {}
    self._turns: dict[str, Turn] = {}

  def next_group(self) -> None:
    self._turns.clear()
    gc.collect()
    backend.release_memory()
    self._cases = {case.name: case for case in next(self._groups) if case.implementation == self._name}

  def prepare(self, name: str) -> float:
    """Prepares a case; seconds."""
    seconds, self._turns[name] = harness.prepare(self._cases[name])
    backend.release_memory()
    return seconds

  def take_turn(self, name: str, least_s: float) -> float:
    """See `harness.take_turn`. Between turns the process gives freed memory back, so that only one has much of it."""
    seconds = self._turns[name](least_s)
    backend.release_memory()
    return seconds


def _serve(pipe: Connection, contender: Contender) -> None:
  """Answers the questions (method, arguments) of the main process until it closes the pipe."""
  if contender.keep_freed_memory:
    backend.keep_freed_memory()  # early, before threads have memory of their own
  jax.config.update('jax_enable_compilation_cache', False)
  cases = _Cases(contender)
  with contextlib.suppress(EOFError, KeyboardInterrupt):
    while True:
      method, *arguments = pipe.recv()
      try:
        pipe.send((getattr(cases, method)(*arguments), None))
      except Exception as error:
        pipe.send((None, (type(error).__name__, traceback.format_exc())))


class ProcessError(RuntimeError):
  """A contender failed. `kind`: type of its exception."""

  def __init__(self, name: str, kind: str, text: str):
    super().__init__(f'{name}: {text}')
    self.kind = kind


class _Process:
  """The process of a contender, seen from the main one."""

  def __init__(self, contender: Contender):
    context = multiprocessing.get_context('spawn')  # a fork of a process with JAX's threads may hang
    self._pipe, theirs = context.Pipe()
    self._name = contender.name
    self._process = context.Process(target=_serve, args=(theirs, contender), daemon=True)
    self._process.start()
    theirs.close()

  def ask(self, method: str, *arguments: Any) -> None:
    with contextlib.suppress(ConnectionError):  # `answer` says so
      self._pipe.send((method, *arguments))

  def answer(self) -> Any:
    """The answer to the last question; waits for it."""
    try:
      answer, error = self._pipe.recv()
    except (EOFError, ConnectionError):
      self._process.join(_STOP_S)
      raise ProcessError(self._name, 'exit', f'its process ended with status {self._process.exitcode}') from None
    if error:
      raise ProcessError(self._name, *error)
    return answer

  def stop(self) -> None:
    self._pipe.close()
    self._process.join(_STOP_S)
    if self._process.is_alive():
      self._process.kill()
      self._process.join()


class Contest:
  """The processes of all contenders; a context that ends them."""

  def __init__(self, contenders: Iterable[Contender]):
    self._processes = {contender.name: _Process(contender) for contender in contenders}

  def __enter__(self) -> 'Contest':
    return self

  def __exit__(self, *error: Any) -> None:
    for process in self._processes.values():
      process.stop()

  def measure(self, groups: Groups, rounds: int, log: Callable[[str], None]) -> Iterator[Result]:
    """Results of the groups, which are those of the contenders; see `harness.measure`."""
    for group in groups:
      for process in self._processes.values():
        process.ask('next_group')
      for process in self._processes.values():
        process.answer()
      yield from harness.measure(group, rounds, log, self._prepare)

  def _prepare(self, case: Case) -> tuple[float, Turn]:
    process = self._processes[case.implementation]

    def ask(method, *arguments):
      process.ask(method, case.name, *arguments)
      return process.answer()

    return ask('prepare'), functools.partial(ask, 'take_turn')
