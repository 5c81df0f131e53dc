"""Modelled step time: closed forms, and an independent count of what a step exchanges."""

import flax.traverse_util
import jax
import pytest

from benchmarks import scaling_model
from benchmarks.scaling_model import Exchange, Links, reduction_s, step_times
from focal_jax.models.end_to_end import variable_shapes
from focal_jax.models.registry import make_model

LINKS = Links(devices_a_host=4, inside=100.0, between=10.0, inside_s=0.5, hop_s=0.25)


@pytest.mark.parametrize(
  ('devices', 'seconds'),
  [
    (1, 0.0),
    (2, 0.5 + 200 / 100),  # each half goes there and back: the whole, once each way
    (4, 0.5 + 2 * 3 / 4 * 200 / 100),
    (8, 0.5 + 2 * 3 / 4 * 200 / 100 + 0.25 + 200 / 10),
    (16, 0.5 + 2 * 3 / 4 * 200 / 100 + 2 * 0.25 + 2 * 3 / 4 * 200 / 10),
  ],
)
def test_reduction(devices, seconds):
  assert reduction_s(200, devices, LINKS) == pytest.approx(seconds)


def test_rows():
  exchange = Exchange(gradient_bytes=200, waits=3, wait_bytes=30)
  rows = {row['devices']: row for row in step_times(100.0, 4, 1e9, exchange, LINKS)}
  assert rows[1]['step'] == 100
  assert rows[8]['step'] == pytest.approx(100 + reduction_s(200, 8, LINKS) + 3 * reduction_s(10, 8, LINKS))
  assert rows[8]['efficiency'] == pytest.approx(100 / rows[8]['step'])
  # The stacks of a host's four devices, at one in ten seconds, take longer than the step.
  assert step_times(10.0, 4, 0.1, exchange, LINKS)[1]['step'] == pytest.approx(160)


@pytest.mark.slow
@pytest.mark.parametrize(('networks', 'parts'), [('alignment', ['alignment']), ('both', ['depth', 'alignment'])])
def test_what_a_step_exchanges(networks, parts):
  """Every normalisation waits twice, for its mean and mean of squares, and for their gradients."""
  exchange = scaling_model.count_exchange(networks, (2, 2, 32, 32))
  shapes = variable_shapes(make_model({}))['params']
  flat = flax.traverse_util.flatten_dict(shapes)
  scales = [leaf for path, leaf in flat.items() if path[-1] == 'scale' and path[0] in parts]
  assert exchange.waits == 2 * len(scales)
  assert exchange.wait_bytes == sum(2 * 2 * 4 * leaf.size for leaf in scales)
  assert exchange.gradient_bytes == sum(4 * leaf.size for leaf in jax.tree.leaves(shapes))
