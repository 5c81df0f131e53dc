"""Tables of an evaluation: values of each stack, means with intervals, and published results."""

import csv
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from focal_jax.evaluation.bootstrap import LEVEL, mean_interval
from focal_jax.evaluation.measure import MOTION_TITLES, StackResult
from focal_jax.evaluation.protocols import Protocol, Published

_UNCERTAINTY = ('avg_unc', 'ause')


class Tally:
  """Results collected stack by stack.

  Attributes:
    rows: (name, measured pixels, values of each method by label), one per stack.
    by_depth: sums of `metrics.error_by_depth` of each method.
    sparsification: for each method with a confidence, [2, K] of each stack, divided by the stack's own error.
    focus_ends: focus of the farthest and the nearest frame of all stacks; None if they differ.
  """

  def __init__(self, labels: Sequence[str]):
    self.labels = tuple(labels)
    self.rows: list[tuple[str, int, dict[str, dict[str, float]]]] = []
    self.by_depth: dict[str, Any] = dict.fromkeys(labels, 0.0)
    self.sparsification: dict[str, list[np.ndarray]] = {label: [] for label in labels}
    self._focus_ends: set[tuple[float, float]] = set()

  def add(self, result: StackResult) -> None:
    self.rows.append((result.name, result.pixels, {label: one.values for label, one in result.methods.items()}))
    self._focus_ends.add(result.focus_ends)
    for label, one in result.methods.items():
      self.by_depth[label] = self.by_depth[label] + one.by_depth.astype(np.float64)
      if one.sparsification is not None and one.sparsification[0, 0] > 0:
        self.sparsification[label].append(one.sparsification / one.sparsification[0, 0])

  @property
  def focus_ends(self) -> tuple[float, float] | None:
    return next(iter(self._focus_ends)) if len(self._focus_ends) == 1 else None

  def values(self, label: str, name: str) -> np.ndarray:
    """[S] one value of a method on every stack, NaN if missing."""
    return np.array([methods[label].get(name, math.nan) for _, _, methods in self.rows])

  def names(self) -> list[str]:
    """Names of all values that any method has on any stack."""
    return list(dict.fromkeys(name for _, _, methods in self.rows for values in methods.values() for name in values))


@dataclasses.dataclass(frozen=True)
class Heading:
  """What was evaluated.

  Attributes:
    dataset: with its config, as in `Published.same_as`.
    whole: whether all stacks of the split were evaluated.
    unit: of depth.
    align: requested alignment of the frames, one of `align.estimate.ALIGNMENTS`.
    aligned_by: alignment used for each method, by label; without methods that do not read the images.
    corrected: labels of the methods with corrected focus.
    facts: lines for the summary: weights, device, versions.
  """

  dataset: str
  split: str
  whole: bool
  unit: str
  align: str
  aligned_by: Mapping[str, str]
  corrected: Sequence[str]
  facts: Mapping[str, Any]


def summarise(tally: Tally, protocol: Protocol, heading: Heading, paired: bool) -> dict[str, Any]:
  """All numbers of an evaluation, in the form of summary.json.

  Args:
    tally: the collected results.
    protocol: what was measured.
    heading: what was evaluated.
    paired: add the differences of each method to the first, stack by stack.
  """
  methods = {}
  for label in tally.labels:
    values = {name: tally.values(label, name) for name in tally.names()}
    seconds = values.pop('seconds')
    methods[label] = {
      **({'focus': 'corrected' if label in heading.corrected else 'as labelled'} if protocol.focus_correction else {}),
      **({'align': heading.aligned_by[label]} if label in heading.aligned_by else {}),
      'values': {name: _statistics(column) for name, column in values.items() if np.isfinite(column).any()},
      'seconds_a_stack': {
        'median': float(np.median(seconds)),
        'fastest': float(np.min(seconds)),
        'slowest': float(np.max(seconds)),
      },
    }
  summary = {
    'dataset': heading.dataset,
    'split': heading.split,
    'stacks': len(tally.rows),
    'stacks_without_valid_target': sum(pixels == 0 for _, pixels, _ in tally.rows),
    'align': heading.align,
    'protocol': {
      'unit': heading.unit,
      'mask': protocol.mask,
      'relative_to_focus_range': protocol.relative,
      'measured_centre_px': protocol.centre,
      'measures': protocol.names,
      'focus_correction': correction.offset if (correction := protocol.focus_correction) else None,
    },
    **heading.facts,
    'methods': methods,
    'published': [
      dataclasses.asdict(row) | {'same_stacks_as_ours': _is_same(row, heading)} for row in protocol.published
    ],
  }
  if paired:
    first = tally.labels[0]
    summary['differences_to_first'] = {
      label: {
        name: _statistics(difference)
        for name in tally.names()
        if np.isfinite(difference := tally.values(label, name) - tally.values(first, name)).any()
      }
      for label in tally.labels[1:]
    }
  return summary


def _statistics(values: np.ndarray) -> dict[str, float | int | None]:
  values = values[np.isfinite(values)]
  mean, low, high = mean_interval(values)
  ends = None if math.isnan(low) else low, None if math.isnan(high) else high
  return {'mean': mean, 'low': ends[0], 'high': ends[1], 'stacks': len(values)}


def _is_same(row: Published, heading: Heading) -> bool:
  return heading.whole and (heading.dataset, heading.split) in row.same_as


def write_csv(path: Path, tally: Tally) -> None:
  """Writes one line per stack and method."""
  names = tally.names()
  with path.open('w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(['name', 'method', 'pixels', *names])
    for name, pixels, methods in tally.rows:
      for label, values in methods.items():
        writer.writerow([name, label, pixels, *(values.get(name, '') for name in names)])


def markdown(summary: Mapping[str, Any]) -> str:
  """The summary as Markdown."""
  protocol, methods = summary['protocol'], summary['methods']
  first = next(iter(methods))
  stacks = _count(summary['stacks'], 'stack')
  lines = [f'# {summary["dataset"]}, {summary["split"]}: {stacks}', '']
  where = f', in the middle {" x ".join(map(str, centre))} px' if (centre := protocol['measured_centre_px']) else ''
  lines += [
    f'Depth in {protocol["unit"] or "the unit of the stacks"}. Measured: {protocol["mask"]}{where}. Frames are '
    f'{_alignment(summary)}; '
    'networks pad their sides to multiples of 32 px. Figures are means over the stacks of the value of each.',
    '',
  ]
  if any(method.get('focus') == 'corrected' for method in methods.values()):
    lines += [
      f'Focus corrected: {protocol["focus_correction"]:g} {protocol["unit"]} added to the labels of all frames, a '
      'constant of the data set. Networks trained on it have learned the constant, so only methods that were not are '
      'measured with corrected focus. Published figures use the labels.',
      '',
    ]
  if without := summary['stacks_without_valid_target']:
    lines += [f'{_count(without, "stack")} without a valid target left out.', '']
  measured = summary['stacks'] - summary['stacks_without_valid_target']
  if fewer := [
    f'{label}, {name}: {missing}'
    for label, method in methods.items()
    for name in protocol['measures']
    if (missing := measured - method['values'].get(name, {'stacks': 0})['stacks'])
  ]:
    lines += [f'Stacks left out of a mean, because it is undefined or not finite there: {"; ".join(fewer)}.', '']
  for name in ('weights', 'constant', 'device', 'versions'):
    value = summary.get(name)
    if value is not None:
      text = f'{value:.4g}' if isinstance(value, float) else value
      if isinstance(value, Mapping):
        text = ', '.join(key if key == one else f'{key} {one}' for key, one in value.items())
      lines.append(f'* {name}: {text}')
  names = [name for name in protocol['measures'] if any(name in method['values'] for method in methods.values())]
  if names:
    names += [name for name in _UNCERTAINTY if any(name in method['values'] for method in methods.values())]
    lines += ['', *_errors(summary, names, stacks)]
  if 'differences_to_first' in summary:
    lines += ['', f'## Differences to {first}', '', *_differences(summary['differences_to_first'], names)]
  motion = [name for name in MOTION_TITLES if any(name in method['values'] for method in methods.values())]
  if motion:
    lines += ['', '## Alignment', '', _row('method', *(MOTION_TITLES[name] for name in motion)), _rule(len(motion))]
    lines += [
      _row(label, *(_mean(method['values'].get(name), 5) for name in motion))
      for label, method in methods.items()
      if any(name in method['values'] for name in motion)
    ]
    if {'zoom_before', 'zoom_after'} & set(motion):
      lines += [
        '',
        'Residual zoom (largest over smallest among the frames) and displacement (root mean square over pixels and '
        'frames) are measured in the images by phase correlation, without the network or ground truth.',
      ]
  lines += ['', '## Run time', '', _row('method', 's per stack, median', 'fastest', 'slowest'), _rule(3)]
  lines += [
    _row(label, *(f'{method["seconds_a_stack"][name]:.3f}' for name in ('median', 'fastest', 'slowest')))
    for label, method in methods.items()
  ]
  lines += ['', 'One stack at a time, from host to host, after compilation.']
  return '\n'.join(lines) + '\n'


def plain(summary: Mapping[str, Any], width: int = 100) -> str:
  """Means of the measured methods as aligned text, with as many of the measures as fit into lines of `width`."""
  methods = summary['methods']
  names = [
    name
    for name in (*summary['protocol']['measures'], *_UNCERTAINTY, *MOTION_TITLES)
    if any(name in method['values'] for method in methods.values())
  ]
  room = max(map(len, methods))
  lines = [label.ljust(room) for label in ('', *methods)]
  for name in names:
    cells = [name, *(_mean(method['values'].get(name), 3) for method in methods.values())]
    room = 2 + max(map(len, cells))
    if len(lines[0]) + room > width:
      break
    lines = [line + cell.rjust(room) for line, cell in zip(lines, cells, strict=True)]
  stacks = _count(summary['stacks'], 'stack')
  title = f'{summary["dataset"]}, {summary["split"]}: means over {stacks}, frames {_alignment(summary)}'
  return '\n'.join([title, '', *(line.rstrip() for line in lines)]) + '\n'


def _alignment(summary: Mapping[str, Any]) -> str:
  asked = summary['align']
  if asked == 'off':
    return 'taken as aligned'
  others = [label for label, method in summary['methods'].items() if method.get('align', asked) != asked]
  without = f'; without an alignment network, and so measured: {", ".join(others)}' if others else ''
  return f'aligned first ({asked}{without})'


def _errors(summary: Mapping[str, Any], names: Sequence[str], stacks: str) -> list[str]:
  """Table of the means with published rows and their sources, and the table of the intervals."""
  methods, published = summary['methods'], summary['published']
  lines = [_row('method', 'measured on', *names), '| --- | --- |' + ' ---: |' * len(names)]
  for label, method in methods.items():
    lines.append(_row(label, f'these {stacks}', *(_mean(method['values'].get(name)) for name in names)))
  sources = list(dict.fromkeys(row['source'] for row in published))
  for row in published:
    where = row['measured_on'] + (' (these stacks)' if row['same_stacks_as_ours'] else '')
    figures = (f'{row["values"][name]:g}' if name in row['values'] else '' for name in names)
    lines.append(_row(f'{row["method"]} [{sources.index(row["source"]) + 1}]', where, *figures))
  lines.append('')
  if published:
    lines += [f'[{index}] {source}.  ' for index, source in enumerate(sources, 1)]
    if not all(row['same_stacks_as_ours'] for row in published):
      lines += ['', 'Rows measured on other stacks are for orientation only.']
    lines.append('')
  if any(value['low'] is not None for method in methods.values() for value in method['values'].values()):
    lines += [
      f'{LEVEL:.0%} intervals of the means, from bootstrapping the stacks as if they were independent:',
      '',
      _row('method', *names),
      _rule(len(names)),
    ]
    lines += [
      _row(label, *(_interval(method['values'].get(name)) for name in names)) for label, method in methods.items()
    ]
  return lines


def _differences(differences: Mapping[str, Any], names: Sequence[str]) -> list[str]:
  lines = [_row('method', *names), _rule(len(names))]
  for label, values in differences.items():
    cells = []
    for name in names:
      value = values.get(name)
      cell = f'{_mean(value)} ({interval})' if (interval := _interval(value)) else _mean(value)
      apart = value and value['low'] is not None and (value['low'] > 0 or value['high'] < 0)
      cells.append(f'**{cell}**' if apart else cell)
    lines.append(_row(label, *cells))
  return [
    *lines,
    '',
    f'Mean differences, paired by stack, with {LEVEL:.0%} bootstrap intervals; bold where the interval excludes 0.',
  ]


def _mean(value: Mapping[str, Any] | None, digits: int = 4) -> str:
  return '' if value is None else f'{value["mean"]:.{digits}g}'


def _interval(value: Mapping[str, Any] | None) -> str:
  return '' if value is None or value['low'] is None else f'{value["low"]:.3g} .. {value["high"]:.3g}'


def _row(*cells: str) -> str:
  return '| ' + ' | '.join(cells) + ' |'


def _rule(columns: int) -> str:
  return '| --- |' + ' ---: |' * columns


def _count(number: int, noun: str) -> str:
  return f'{number} {noun}' + ('' if number == 1 else 's')
