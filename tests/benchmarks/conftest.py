import pytest

from benchmarks import harness, run


@pytest.fixture
def program(monkeypatch):
  """benchmarks.run with flags, one timed call a turn, and ceilings that take no time to measure."""
  monkeypatch.setattr(harness, 'TURN_S', 0.0)
  monkeypatch.setattr(harness, 'measure_ceilings', lambda dtype: harness.Ceilings(1e11, 1e10))

  def call(*arguments):
    for name in run.FLAGS:
      run.FLAGS[name].unparse()
    run.main(run.FLAGS(['run', *map(str, arguments)]))

  return call
