"""`make demo`: the whole path on real data. Trains for a moment, evaluates on real crops, predicts a real stack.

  python -m examples.demo [FOLDER]

Everything goes into FOLDER (demo); what an earlier demo wrote there is replaced.
"""

from pathlib import Path

from focal_jax.command_line import run_program, show_progress
from focal_jax.data.sources import EXAMPLES
from focal_jax.evaluation.evaluator import evaluate
from focal_jax.files.outputs import check_output
from focal_jax.prediction.predict import Options, predict_folder
from focal_jax.recipes import default, simulated
from focal_jax.training.loop import train_and_evaluate


def main(argv: list[str]) -> None:
  show_progress()
  out = Path(argv[1] if len(argv) > 1 else 'demo')
  for part in ('evaluation', 'pcb'):
    check_output(out / part, overwrite=True)

  print('\n== 1. Training end to end on simulated stacks, a few steps (configs/simulated.py:smoke)')
  train_and_evaluate(simulated.get_config('smoke'), out / 'training')

  print('\n== 2. Evaluating the shipped weights on real DDFF-12 crops, with two baselines')
  evaluate(default.get_config(), None, out / 'evaluation', overwrite=True)

  print('\n== 3. Depth of a real, unaligned stack of a circuit board, recorded near to far, without metadata')
  predict_folder(EXAMPLES / 'pcb', out / 'pcb', Options(near_to_far=True, max_side=640), overwrite=True)

  print('\nDone. Look at:')
  for picture in (
    sorted((out / 'training' / 'pictures').glob('*.png'))[-1],
    out / 'evaluation' / 'worst.png',
    out / 'pcb' / 'contact_sheet.png',
  ):
    print(f'  {picture}')


if __name__ == '__main__':
  run_program(main, 'examples.demo')
