"""The benchmark itself: turns, ratios, FLOPs, search for the largest size, output. Needs no PyTorch."""

import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import cases, flops, harness, memory, report, run, stages
from benchmarks.harness import OURS, Case, Ceilings, Result
from benchmarks.settings import Settings, multiple_of_32
from benchmarks.training import Option, empty_stack, step_flops
from focal_jax.errors import InputError
from focal_jax.models import conv
from focal_jax.models.end_to_end import variable_shapes
from focal_jax.models.published import INPUT_CONVENTION
from focal_jax.models.registry import make_model

CEILINGS = Ceilings(1e11, 1e10)
FULL = (1, 10, 224, 224)


def shape_of(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def result(name, implementation, seconds, **work):
  return Result(Case('warp', name, implementation, '[1]', None, **work), 1.5, seconds)


# Turns


def test_cases_are_prepared_first_and_then_run_in_turns(monkeypatch):
  monkeypatch.setattr(harness, 'TURN_S', 0.0)
  done = []

  def case(name):
    def prepare():
      done.append(f'prepare {name}')
      return lambda: done.append(name)

    return Case('warp', name, OURS, '', prepare)

  results = harness.measure([case('a'), case('b')], rounds=2)
  # Of two calls in a row, the second counts; every second round is in reverse order.
  assert done == ['prepare a', 'a', 'prepare b', 'b', *'aabb', *'bbaa']
  assert [len(r.seconds) for r in results] == [2, 2]


def test_a_turn_repeats_short_calls():
  waits = iter([0.1, 0.01, 0.05, 0.02])  # the first does not count
  assert 0.02 <= harness.take_turn(lambda: time.sleep(next(waits)), 0.075) < 0.05


def test_compile_time_is_apart():
  def prepare():
    time.sleep(0.05)
    return lambda: None

  (one,) = harness.measure([Case('warp', 'a', OURS, '', prepare)], rounds=3)
  assert one.compile_s >= 0.05
  assert max(one.seconds) < 0.05


def test_what_is_optional_may_fail():
  def prepare():
    raise OSError('/somewhere')

  case = Case('warp', 'a', 'PyTorch compile', '', prepare, optional=True)
  (one,) = harness.measure([case], rounds=1)
  assert one.error == 'OSError'
  assert harness.rows([one], CEILINGS) == []
  with pytest.raises(OSError, match='somewhere'):
    harness.measure([Case('warp', 'a', OURS, '', prepare)], rounds=1)


def test_ratio_is_of_the_same_round():
  # The machine is four times slower in the third round: the medians' ratio would be 3, each round's is 2 or 3.
  ours, peer = result('a', OURS, [1.0, 1.0, 4.0]), result('a', 'peer', [2.0, 3.0, 8.0])
  first, second = harness.rows([ours, peer], CEILINGS)
  assert first['ratio'] is None
  assert (second['ratio'], second['ratio_range']) == (2.0, [2.0, 3.0])
  assert harness.rows([result('a', 'peer', [1.0]), result('b', OURS, [1.0])], CEILINGS)[0]['ratio'] is None


def test_floor_is_the_longer_of_work_and_traffic():
  row, slow, bare = harness.rows(
    [result('a', OURS, [1.0, 2.0, 6.0], flops=5e10, bytes=1e9), result('b', OURS, [2.0], flops=1.0, bytes=1e10),
     result('c', OURS, [2.0])], CEILINGS
  )  # fmt: skip
  assert (row['median_s'], row['fastest_s'], row['slowest_s']) == (2.0, 1.0, 6.0)
  assert (row['floor_s'], row['over_floor'], row['gflops_per_s'], row['gbytes_per_s']) == (0.5, 4.0, 25.0, 0.5)
  assert (slow['floor_s'], slow['over_floor']) == (1.0, 2.0)
  assert bare['floor_s'] is bare['over_floor'] is bare['gflops_per_s'] is None


def test_ceilings_and_machine():
  assert harness.best(Ceilings(1.0, 4.0), Ceilings(3.0, 2.0)) == Ceilings(3.0, 4.0)
  facts = harness.machine_facts()
  assert facts['jax'] == jax.__version__
  assert facts['cores'] >= 1
  assert not any('/' in str(value) and str(value).startswith('/') for value in facts.values())


# FLOPs


def test_flops_of_a_product():
  assert flops.count(jnp.matmul, shape_of(3, 5), shape_of(5, 7)) == flops.Flops(0.0, 2 * 3 * 5 * 7)


@pytest.mark.parametrize('stride', [1, 2])
def test_flops_of_a_convolution_and_its_gradients(stride):
  x, kernel = shape_of(2, 4, 8, 12, 3), shape_of(3, 3, 3, 3, 5)
  places, taps = 2 * 4 * (8 // stride) * (12 // stride), 27
  forward = 2 * places * taps * 3 * 5

  def function(x, kernel):
    return conv.conv(x, kernel, stride=stride)

  assert flops.count(function, x, kernel).convolutions == forward
  pull = jax.grad(lambda *arrays: function(*arrays).sum(), (0, 1))
  # With a cotangent that is not folded as a constant, all three cost the same.
  assert flops.count(pull, x, kernel).convolutions == 3 * forward
  # Counting does not change the form.
  assert conv.conv.__module__ == 'focal_jax.models.conv'


def test_flops_of_a_transposed_convolution_are_its_real_taps():
  found = flops.count(lambda *arrays: conv.conv_transpose(*arrays), shape_of(1, 4, 8, 12, 3), shape_of(3, 3, 3, 3, 5))
  # Of the nine taps at 16 x 24 positions, a quarter meets pixels.
  assert found.convolutions == 2 * 4 * 3 * (8 * 3) * (12 * 3) * 3 * 5


def test_flops_of_loops_and_branches():
  def loop(x):
    return jax.lax.scan(lambda carry, _: (carry @ x, None), x, None, length=4)[0]

  def branch(x):
    return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x, x)

  assert flops.count(loop, shape_of(3, 3)).products == 4 * 54
  assert flops.count(branch, shape_of(3, 3)).products == 2 * 54


@pytest.mark.parametrize(('align', 'least', 'most'), [(False, 46.9e9, 47e9), (True, 65e9, 75.31e9)])
def test_flops_of_the_network(align, least, most):
  # The published alignment takes 28.35e9 more, but repeated work may be computed once.
  network, stack = make_model(INPUT_CONVENTION), empty_stack(FULL)
  found = flops.count(lambda v, s: network.apply(v, s, align=align), variable_shapes(network), stack)
  assert least < found.convolutions < most


def test_flops_of_the_training_step():
  # Three times the forward pass of two stacks, without the gradient of the images, which only the stem would have.
  stem = 2 * 2 * 10 * 224 * 224 * 81 * 3 * 8
  found = step_flops(Option(), (2, *FULL[1:]), 'depth')
  assert found == pytest.approx(6 * 46.946e9 - stem, rel=1e-3)


# Stages, scaling, memory


@pytest.fixture(scope='module')
def networks():
  return cases.Networks(Settings(frames=2, height=32, width=32, peer=False))


@pytest.mark.slow
def test_stages_are_the_network(networks):
  found = stages.stages(networks)
  names = [case.name for case in found]
  assert names[0] == 'alignment.features0a'
  assert names[-1] == 'depth.regression'
  assert {'alignment.head0', 'depth.stem', 'depth.aggregation', 'depth.hourglass3', 'depth.score3'} <= set(names)
  (whole,) = (case for case in cases.inference(networks) if case.name == 'end to end')
  assert sum(case.flops or 0 for case in found) == pytest.approx(whole.flops)
  (call,) = (case.prepare() for case in found if case.name == 'depth.score3')
  call()


def test_scaling_lines_share_the_stack_of_the_flags():
  lines = cases.scaling_lines(Settings())
  assert [value for value, _ in lines['frames']] == [3, 5, 10, 15]
  assert [value for value, _ in lines['height, px']] == [128, 224, 320]
  assert all(FULL in [shape for _, shape in points] for points in lines.values())


def test_multiple_of_32():
  assert [multiple_of_32(length) for length in (1, 32, 47, 49, 384.0)] == [32, 32, 32, 64, 384]


@pytest.mark.parametrize('first', [32, 224, 640])
@pytest.mark.parametrize('fixed', [0.0, 300.0, 5000.0])
def test_largest_side(first, fixed):
  tried = []

  def bytes_of(side):
    tried.append(side)
    return fixed + side**2

  side, found = memory.largest_side(bytes_of, 500.0**2, first)
  assert side == (480 if fixed < 500**2 - 480**2 else 448)
  assert found == fixed + side**2
  assert len(tried) == len(set(tried)) <= 8


def test_largest_side_may_be_none():
  assert memory.largest_side(lambda side: side**2, 100.0, 224) == (0, 0.0)


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='no /proc')
def test_peak_memory_of_the_process():
  import resource

  block = np.ones(2**22)
  peak = memory._peak_bytes()
  assert block.nbytes < peak < 1.01 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


# Output


def document(rows, **others):
  return {
    'machine': harness.machine_facts(),
    'settings': {'dtype': 'float32', 'rounds': 3},
    'ceilings': {'flops_per_s': 1.6e11, 'bytes_per_s': 2e10},
    'agreement': None,
    'notes': [],
    'rows': rows,
    'scaling': {},
    'memory': None,
  } | others


def test_table():
  rows = harness.rows(
    [result('frames', OURS, [0.001], bytes=1e6), result('frames', 'PyTorch eager', [0.0025], bytes=1e6)], CEILINGS
  )
  text = report.markdown(document(rows, agreement={'depth network': 3e-6}, notes=['A note.']))
  assert 'Measured ceilings: 160 GFLOP/s in a large matrix product, 20.0 GB/s' in text
  assert 'depth network 3.0e-06.' in text
  assert '\nA note.\n' in text
  assert '|  | implementation | input | compile, s | median, ms | fastest | slowest | peer | from | to | GB/s |' in text
  assert '| frames | focal_jax | [1] | 1.50 | 1.00 | 1.00 | 1.00 |  |  |  | 1.00 | 0.100 | 10.0 |' in text
  assert '| frames | PyTorch eager | [1] |  | 2.50 | 2.50 | 2.50 | 2.50 | 2.50 | 2.50 | 0.400 | 0.100 | 25.0 |' in text


@pytest.mark.parametrize(
  ('value', 'text'),
  [(None, ''), (0.01234, '0.0123'), (1.0, '1.00'), (99.96, '100'), (123.4, '123'), (12345.0, '12345')],
)
def test_number(value, text):
  assert report.number(value) == text


def test_written_files(tmp_path):
  shapes = [(1, 10, side, side) for side in (32, 64)] + [(1, 3, 32, 32)]
  sizes = {'temp': 2**20, 'argument': 2**20, 'output': 2**19, 'alias': 0, 'total': 2**21}
  found = {
    'allotted': [{'kind': 'inference', 'shape': list(shape), **sizes} for shape in shapes],
    'largest': [{'kind': 'training', 'limit_gib': 16, 'side': 640, 'total': 2**33}],
    'process': {'shape': [10, 384, 576], 'imported': 2**28, 'peak': 2**30},
  }
  rows = harness.rows([result('frames', OURS, [0.001, 0.003])], CEILINGS)
  scaling = {'frames': [{'value': n, 'name': f'[1, {n}]'} for n in (3, 5)]}
  for n in (3, 5):
    one = Case('scaling', f'[1, {n}]', OURS, f'[1, {n}]', None, flops=1e9 * n)
    rows += harness.rows([Result(one, 1.0, [0.1 * n])], CEILINGS)
  whole = document(rows, memory=found, scaling=scaling)
  report.write(tmp_path, whole)

  def refuse(name):
    raise AssertionError(f'{name} is no JSON')

  assert json.loads((tmp_path / 'results.json').read_text(), parse_constant=refuse) == json.loads(json.dumps(whole))
  text = (tmp_path / 'table.md').read_text()
  assert 'Largest square stack of training within 16 GiB: 640 px (8.00 GiB).' in text
  assert 'a [10, 384, 576, 3] stack takes 1024 MiB at peak, 256 of them after importing.' in text
  assert (tmp_path / 'plot.png').stat().st_size > 1000


# Command line


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--only=warp,wrap', r"--only: no part 'wrap', expected some of inference, .*"),
    ('--height=100', '--height is 100, expected a multiple of 32'),
    ('more', "unexpected argument 'more'.*"),
  ],
)
def test_wrong_flags(program, flag, message):
  with pytest.raises(InputError, match=message):
    program(flag)


def test_results_are_kept(program, tmp_path):
  (tmp_path / 'table.md').write_text('')
  with pytest.raises(InputError, match='already holds files'):
    program('--only=warp', f'--out={tmp_path}')


def test_warp(program, tmp_path, capsys):
  out = tmp_path / 'out'
  program('--only=warp', '--frames=2', '--height=32', '--width=64', '--rounds=2', '--nopeer', f'--out={out}')
  assert sorted(path.name for path in out.iterdir()) == ['plot.png', 'results.json', 'table.md']
  found = json.loads((out / 'results.json').read_text())
  assert [row['name'] for row in found['rows']] == ['frames', 'frames, gradient', 'features', 'features, gradient']
  assert found['rows'][0]['shape'] == '[1, 2, 32, 64, 3]'
  assert all(len(row['seconds']) == 2 and row['bytes'] for row in found['rows'])
  assert (out / 'table.md').read_text() in capsys.readouterr().out


def test_warp_without_torch(program, monkeypatch, capsys):
  monkeypatch.setattr(run.importlib.util, 'find_spec', lambda name: None)
  program('--only=warp', '--frames=2', '--height=32', '--width=32', '--rounds=1')
  assert 'PyTorch is not installed: the network and the warp have no peer.' in capsys.readouterr().out


@pytest.mark.slow
def test_inference(program, tmp_path):
  program(
    '--only=inference', '--frames=2', '--height=32', '--width=32', '--rounds=1', '--nopeer', f'--out={tmp_path / "a"}'
  )
  found = json.loads((tmp_path / 'a' / 'results.json').read_text())
  assert [row['name'] for row in found['rows']] == [
    'end to end', 'shipped networks, end to end', 'predict, host to host'
  ]  # fmt: skip
  first = found['rows'][0]
  assert first['over_floor'] == pytest.approx(first['median_s'] / first['floor_s'])
  assert np.isfinite(first['compile_s'])
  assert found['agreement'] is None
