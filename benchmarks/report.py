"""Output of `benchmarks.run`: results.json, table.md and plot.png."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.harness import OURS

Document = dict[str, Any]
TITLES = {
  'inference': 'inference, alignment at full resolution',
  'depth': 'depth network alone',
  'alignment': 'alignment network alone',
  'train_step': 'training step of the depth network, with Adam',
  'warp': 'warp, against grid_sample',
  'stages': 'stages of a prediction',
  'stages_train': 'stages of a training step, forward and backward',
  'scaling': 'scaling, end to end',
  'memory': 'memory',
  'simulator': 'simulator',
  'pipeline': 'input pipeline, a stack',
}
_COLOURS = {OURS: 'C0', 'PyTorch eager': 'C1', 'PyTorch oneDNN': 'C3', 'PyTorch channels last': 'C3'}
_GIB, _MIB = 2**30, 2**20


def write(folder: Path, document: Document) -> None:
  (folder / 'results.json').write_text(json.dumps(document, indent=1, allow_nan=False) + '\n')
  (folder / 'table.md').write_text(markdown(document))
  draw(folder / 'plot.png', document)


def number(value: float | None, digits: int = 3) -> str:
  """A number with this many significant digits, without exponent; '' for None."""
  if value is None:
    return ''
  return f'{value:.0f}' if abs(value) >= 10 ** (digits - 1) else f'{value:#.{digits}g}'.rstrip('.')


def markdown(document: Document) -> str:
  machine, ceilings, settings = (document[key] for key in ('machine', 'ceilings', 'settings'))
  versions = ', '.join(
    f'{name} {machine[key]}'
    for name, key in (('jax', 'jax'), ('flax', 'flax'), ('PyTorch', 'torch'), ('Python', 'python'))
    if machine[key]
  )
  lines = [
    '# Benchmarks',
    '',
    f'{machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB; JAX on {machine["backend"]} '
    f'({machine["device"]}); {versions}. {settings["dtype"]}, {settings["rounds"]} rounds in turns.',
    '',
    f'Measured ceilings: {number(ceilings["flops_per_s"] / 1e9)} GFLOP/s in a large matrix product, '
    f'{number(ceilings["bytes_per_s"] / 1e9)} GB/s in a large copy, read and written.',
    '',
    'Peer: time relative to focal_jax, median over the rounds. Floor: the longer of FLOPs and bytes '
    'over their ceilings (FLOPs of convolutions; bytes of inputs, parameters and results, once each); x floor: '
    'median time over floor.',
  ]
  if document['agreement']:
    errors = ', '.join(f'{name} {error:.1e}' for name, error in document['agreement'].items())
    lines += ['', f'Largest difference of D4 between focal_jax and PyTorch, focus from 0 to 1: {errors}.']
  lines += [line for note in document['notes'] for line in ('', note)]
  for part in dict.fromkeys(row['part'] for row in document['rows']):
    lines += ['', f'## {TITLES[part]}', '']
    lines += table([row for row in document['rows'] if row['part'] == part])
  if document['memory']:
    lines += ['', f'## {TITLES["memory"]}', '', *memory_tables(document['memory'])]
  return '\n'.join(lines) + '\n'


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
  """A table of rows, without columns that are empty in all rows."""
  columns = {
    '': lambda row: row['name'],
    'implementation': lambda row: row['implementation'],
    'input': lambda row: row['shape'],
    'compile, s': lambda row: number(row['compile_s']) if row['implementation'] == OURS else '',
    'median, ms': lambda row: number(1e3 * row['median_s']),
    'fastest': lambda row: number(1e3 * row['fastest_s']),
    'slowest': lambda row: number(1e3 * row['slowest_s']),
    'peer': lambda row: number(row['ratio']),
    'from': lambda row: number(row['ratio_range'][0]) if row['ratio_range'] else '',
    'to': lambda row: number(row['ratio_range'][1]) if row['ratio_range'] else '',
    'GFLOP': lambda row: number(row['flops'] / 1e9) if row['flops'] else '',
    'GFLOP/s': lambda row: number(row['gflops_per_s']),
    'GB/s': lambda row: number(row['gbytes_per_s']),
    'floor, ms': lambda row: number(1e3 * row['floor_s']) if row['floor_s'] else '',
    'x floor': lambda row: number(row['over_floor']),
  }
  return markdown_rows({title: [cell(row) for row in rows] for title, cell in columns.items()})


def memory_tables(memory: dict[str, Any]) -> list[str]:
  rows = memory['allotted']
  cells = {'': [row['kind'] for row in rows], 'stack': [str([*row['shape'], 3]) for row in rows]}
  for part in ('temp', 'argument', 'output', 'total'):
    cells[f'{part}, MiB'] = [number(row[part] / _MIB) for row in rows]
  lines = markdown_rows(cells)
  lines += [
    '',
    'Allocated by XLA; training is end to end, or of the depth network refined alone, with one stack per step.',
    '',
  ]
  for row in memory['largest']:
    lines.append(
      f'Largest square stack of {row["kind"]} within {row["limit_gib"]:g} GiB: {row["side"]} px '
      f'({row["total"] / _GIB:.2f} GiB).'
    )
    lines.append('')
  process = memory['process']
  if process['peak']:
    lines.append(
      f'Compiling and predicting a {[*process["shape"], 3]} stack takes {process["peak"] / _MIB:.0f} MiB at peak, '
      f'{process["imported"] / _MIB:.0f} of them after importing.'
    )
  return lines


def markdown_rows(columns: dict[str, list[str]]) -> list[str]:
  """A table without its empty columns; text columns are left-aligned."""
  kept = {title: cells for title, cells in columns.items() if any(cells)}
  left = ('', 'implementation', 'input', 'stack')
  lines = ['| ' + ' | '.join(kept) + ' |']
  lines.append('|' + '|'.join(' --- ' if title in left else ' ---: ' for title in kept) + '|')
  lines += ['| ' + ' | '.join(cells) + ' |' for cells in zip(*kept.values(), strict=True)]
  return lines


def draw(path: Path, document: Document) -> None:
  """One panel of bars per part; lines for scaling and memory."""
  parts = dict.fromkeys(row['part'] for row in document['rows'])
  bars = {part: [r for r in document['rows'] if r['part'] == part] for part in parts if part != 'scaling'}
  heights = {part: 0.7 + 0.17 * len(rows) + 0.1 * len({r['name'] for r in rows}) for part, rows in bars.items()}
  if 'scaling' in parts:
    heights['scaling'] = 3.0
  if document['memory']:
    heights['memory'] = 3.0
  if not heights:
    return
  figure = Figure(figsize=(9, 0.6 + sum(heights.values())), layout='constrained')
  FigureCanvasAgg(figure)
  panels = figure.subfigures(len(heights), 1, height_ratios=list(heights.values()), squeeze=False)[:, 0]
  for part, panel in zip(heights, panels, strict=True):
    panel.suptitle(TITLES[part], fontsize=10)
    if part == 'scaling':
      _draw_scaling(panel, [row for row in document['rows'] if row['part'] == part], document['scaling'])
    elif part == 'memory':
      _draw_memory(panel, document['memory']['allotted'])
    else:
      _draw_bars(panel.subplots(), bars[part])
  machine = document['machine']
  figure.suptitle(f'{machine["cpu"]}, {machine["cores"]} cores; JAX on {machine["device"]}', fontsize=9)
  figure.savefig(path, dpi=120)


def _colour(implementation: str) -> str:
  return _COLOURS.get(implementation, 'C2' if implementation.endswith('compile') else '0.6')


def _draw_bars(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
  place, ticks, labels, seen = 0.0, [], [], set()
  for name in dict.fromkeys(row['name'] for row in rows):
    group = [row for row in rows if row['name'] == name]
    first = place
    for row in group:
      kind = row['implementation']
      axis.barh(place, 1e3 * row['median_s'], 0.9, color=_colour(kind), label='' if kind in seen else kind)
      seen.add(kind)
      low, high = (1e3 * abs(row[key] - row['median_s']) for key in ('fastest_s', 'slowest_s'))
      axis.errorbar(1e3 * row['median_s'], place, xerr=[[low], [high]], color='0.3', linewidth=0.8)
      place += 1.0
    floor = group[0]['floor_s']
    if floor:
      label = '' if 'floor' in seen else 'floor'
      seen.add('floor')
      axis.vlines(1e3 * floor, first - 0.5, place - 0.5, color='black', linewidth=1.5, label=label)
    ticks.append((first + place - 1) / 2)
    labels.append(name)
    place += 0.6
  axis.set_yticks(ticks, labels, fontsize=7)
  axis.set_ylim(place - 0.6, -0.7)
  axis.set_xlim(left=0)
  axis.set_xlabel('ms', fontsize=8)
  axis.tick_params(axis='x', labelsize=7)
  axis.legend(fontsize=7, frameon=False, loc='center left', bbox_to_anchor=(1.0, 0.5))
  axis.spines[['top', 'right']].set_visible(False)


def _draw_scaling(panel: Any, rows: Sequence[dict[str, Any]], lines: dict[str, list[dict[str, Any]]]) -> None:
  by_name = {(row['name'], row['implementation']): row for row in rows}
  axes = panel.subplots(1, len(lines), sharey=True, squeeze=False)[0]
  implementations = list(dict.fromkeys(row['implementation'] for row in rows))
  for axis, (title, points) in zip(axes, lines.items(), strict=True):
    for implementation in implementations:
      shown = [(p['value'], by_name.get((p['name'], implementation))) for p in points]
      shown = [(value, row['median_s']) for value, row in shown if row]
      if shown:
        axis.plot(*zip(*shown, strict=True), 'o-', color=_colour(implementation), label=implementation, markersize=4)
    floors = [(p['value'], by_name[p['name'], OURS]['floor_s']) for p in points if (p['name'], OURS) in by_name]
    axis.plot(*zip(*floors, strict=True), '--', color='black', label='floor', linewidth=1)
    axis.set_xticks([p['value'] for p in points])
    _tidy(axis, title)
  axes[0].set_ylabel('s', fontsize=8)
  axes[0].legend(fontsize=7, frameon=False)


def _draw_memory(panel: Any, rows: Sequence[dict[str, Any]]) -> None:
  """Memory over pixels for the most common number of frames, and over frames for the most common size."""
  frames, sizes = [row['shape'][1] for row in rows], [tuple(row['shape'][2:]) for row in rows]
  usual_frames, usual_size = max(frames, key=frames.count), max(sizes, key=sizes.count)
  axes = panel.subplots(1, 2, squeeze=False)[0]
  for kind in dict.fromkeys(row['kind'] for row in rows):
    own = [row for row in rows if row['kind'] == kind]
    pixels = sorted((r['shape'][2] * r['shape'][3] / 1e3, r['total']) for r in own if r['shape'][1] == usual_frames)
    counts = sorted((r['shape'][1], r['total']) for r in own if tuple(r['shape'][2:]) == usual_size)
    for axis, points in zip(axes, (pixels, counts), strict=True):
      axis.plot([x for x, _ in points], [total / _GIB for _, total in points], 'o-', label=kind, markersize=4)
  _tidy(axes[0], f'thousand pixels, {usual_frames} frames')
  _tidy(axes[1], f'frames of {usual_size[0]} x {usual_size[1]} px')
  axes[0].set_ylabel('GiB', fontsize=8)
  axes[0].legend(fontsize=7, frameon=False)


def _tidy(axis: Any, label: str) -> None:
  axis.set_ylim(bottom=0)
  axis.set_xlabel(label, fontsize=8)
  axis.tick_params(labelsize=7)
  axis.grid(color='0.9')
  axis.spines[['top', 'right']].set_visible(False)
