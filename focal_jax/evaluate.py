"""`--mode=evaluate`: the DDFF-12 metrics of the network beside two baselines, on the same pixels."""

import csv
import json
import logging
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

import focal_jax
from focal_jax import metrics, pictures
from focal_jax.classical import depth_from_focus
from focal_jax.data import sources
from focal_jax.errors import InputError
from focal_jax.outputs import check_output, result_folder

log = logging.getLogger(__name__)

METHODS = ('network', 'constant', 'classical')
_PICTURES = 5  # stacks shown on the contact sheet


def evaluate(
  config: ConfigDict, weights: str | None, out: Path, overwrite: bool = False
) -> dict[str, dict[str, float]]:
  """Predicts every stack of a split and writes into `out` the means (metrics.json, metrics.md), per_image.csv, and
  pictures.

  Methods: the network; a constant, the mean disparity of the training split; classical depth from focus. Metrics are
  those of `metrics`, per image and then averaged, after the target's restriction to DDFF-12's range; units are
  disparity px.

  Args:
    config: `eval` of a config: dataset, split, data_dir, align.
    weights: as for `focal_jax.load`.

  Raises:
    InputError: a data set that is not built, has no targets, or bad weights; nothing is written then.
  """
  check_output(out, overwrite)
  source = sources.open_source(config.dataset, config.split, config.data_dir)
  model = focal_jax.load(weights)
  constant = sources.mean_target(config.dataset, config.data_dir)

  measure = jax.jit(metrics.per_image)
  totals = {method: metrics.MetricSums.zero() for method in METHODS}
  rows, shown, seconds, shapes = [], [], [], set()
  for example in tqdm(source, desc=f'{config.dataset} {config.split}', unit='stack'):
    images, focus = np.asarray(example['images']), example['focus']
    target = metrics.restrict(jnp.asarray(example['target']), metrics.DDFF_LOW_PX, metrics.DDFF_HIGH_PX)
    valid = jnp.asarray(example['valid'])
    if not np.any(valid):
      raise InputError(
        f'{config.dataset}, {config.split}: {_name(example)} has no valid target; nothing to compare with'
      )
    if images.shape not in shapes:  # compile before the clock runs
      shapes.add(images.shape)
      model.predict(images, focus, example['fov'], config.align)
    start = time.perf_counter()
    network = model.predict(images, focus, example['fov'], config.align)
    seconds.append(time.perf_counter() - start)
    depths = {
      'network': network.depth,
      'constant': np.full_like(network.depth, constant),
      'classical': np.asarray(depth_from_focus(jnp.asarray(images, jnp.float32) / 255, jnp.asarray(focus))[0]),
    }
    for method, depth in depths.items():
      values = measure(jnp.asarray(depth)[None], target[None], valid[None])
      totals[method] = totals[method].add(values, metrics.has_target(target, valid)[None])
      rows.append(
        {'name': _name(example), 'method': method, **{name: float(values[name][0]) for name in metrics.NAMES}}
      )
    if len(shown) < _PICTURES:
      shown.append(_panels(images, depths, target, valid, focus))

  means = {method: {name: float(value) for name, value in total.mean().items()} for method, total in totals.items()}
  table = markdown_table(means)
  result = {
    'dataset': config.dataset,
    'split': config.split,
    'stacks': len(source),
    'weights': model.name,
    'align': config.align,
    'constant_px': constant,
    'metrics': means,
    # Host to host, compiled, on one stack at a time.
    'seconds_a_stack': float(np.median(seconds)),
    'device': str(jax.devices()[0]),
  }
  with result_folder(out, overwrite) as staging:
    (staging / 'metrics.json').write_text(json.dumps(result, indent=2) + '\n')
    (staging / 'metrics.md').write_text(table)
    with (staging / 'per_image.csv').open('w', newline='') as file:
      writer = csv.DictWriter(file, ['name', 'method', *metrics.NAMES])
      writer.writeheader()
      writer.writerows(rows)
    pictures.contact_sheet(staging / 'contact_sheet.png', shown, f'{config.dataset}, {config.split}: disparity in px')
  log.info('%s, %s: %d stacks, %.2f s a stack', config.dataset, config.split, len(source), result['seconds_a_stack'])
  print(table)
  log.info('wrote %s', out / 'contact_sheet.png')
  return means


def markdown_table(means: dict[str, dict[str, float]]) -> str:
  """A row for each method, a column for each metric."""
  lines = ['| method | ' + ' | '.join(metrics.NAMES) + ' |', '| --- |' + ' ---: |' * len(metrics.NAMES)]
  lines += [
    f'| {method} | ' + ' | '.join(f'{row[name]:.4g}' for name in metrics.NAMES) + ' |' for method, row in means.items()
  ]
  return '\n'.join(lines) + '\n'


def _name(example: dict) -> str:
  name = example['name']
  return name.decode() if isinstance(name, bytes) else str(name)


def _panels(images, depths, target, valid, focus) -> list[pictures.Panel]:
  limits = (float(np.min(focus)), float(np.max(focus)))
  truth = np.where((np.asarray(valid) > 0) & (np.asarray(target) > 0), target, np.nan)
  maps = [('truth', truth), ('network', depths['network']), ('classical', depths['classical'])]
  return (
    [pictures.Panel('nearest frame', images[-1])]
    + [pictures.Panel(title, depth, 'px', limits) for title, depth in maps]
    + [pictures.Panel('|network - truth|', np.abs(depths['network'] - truth), 'px', (0.0, 0.1), 'magma')]
  )
