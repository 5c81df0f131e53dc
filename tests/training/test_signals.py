"""Stop signals of several processes, on a stand-in for JAX's coordination service. Real processes: test_parallel.py."""

import os
import signal

import jax
import pytest

from focal_jax.training import signals
from focal_jax.training.signals import StopSignals


@pytest.fixture
def service(monkeypatch):
  """The stand-in: notices SIGTERM, and then reports from step 4 on that all processes stop."""
  heard = []
  before = signal.signal(signal.SIGTERM, lambda *_: heard.append('SIGTERM'))
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(signals.multihost_utils, 'reached_preemption_sync_point', lambda step: bool(heard) and step > 3)
  yield heard
  signal.signal(signal.SIGTERM, before)


def test_an_interrupt_stops_all_processes_at_their_common_step(service):
  default = signal.getsignal(signal.SIGINT)
  with StopSignals() as stop:
    assert not stop.requested(2)
    os.kill(os.getpid(), signal.SIGINT)
    assert not stop.requested(3)  # the others are not there yet
    assert service == ['SIGTERM']
    assert stop.requested(4)
    assert stop.signal == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is default  # a second one ends the program at once
  assert signal.getsignal(signal.SIGINT) is default


def test_a_process_stops_for_the_interrupt_of_another(service):
  with StopSignals() as stop:
    service.append('SIGTERM')
    assert stop.requested(4)
    assert stop.signal == signal.SIGTERM
