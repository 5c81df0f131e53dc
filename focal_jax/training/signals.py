"""Signals that stop a run."""

import contextlib
import logging
import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

log = logging.getLogger(__name__)


class StopSignals(contextlib.AbstractContextManager):
  """Records SIGTERM and SIGINT, so that the run stops at its next step; a second signal ends the program at once.

  Attributes:
    signal: the signal's number, once the run is to stop because of it.
  """

  def __init__(self):
    self.signal, self._before, self._interrupted = None, {}, False

  def __enter__(self) -> 'StopSignals':
    if threading.current_thread() is not threading.main_thread():
      return self
    # With several processes JAX's coordination service listens for SIGTERM, and makes all stop at the same step.
    alone = jax.process_count() == 1
    handlers = {signal.SIGTERM: self._note, signal.SIGINT: self._note} if alone else {signal.SIGINT: self._hand_on}
    for number, handler in handlers.items():
      self._before[number] = signal.signal(number, handler)
    return self

  def __exit__(self, *_: Any) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    self._before = {}

  def _note(self, number: int, _: Any) -> None:
    log.warning('%s: stopping after this step', signal.Signals(number).name)
    self.signal = number
    self.__exit__()

  def _hand_on(self, number: int, _: Any) -> None:
    """Turns SIGINT into SIGTERM, which JAX's coordination service listens for and forwards to the other processes."""
    log.warning('%s: stopping all processes after a common step', signal.Signals(number).name)
    self._interrupted = True
    self.__exit__()
    os.kill(os.getpid(), signal.SIGTERM)

  def requested(self, step: int) -> bool:
    if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
      self.signal = signal.SIGINT if self._interrupted else signal.SIGTERM
    return self.signal is not None
