"""`python -m focal_jax.sweeps.train_one CONFIG WORKDIR`: one run of a sweep, in its own process."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from focal_jax.command_line import run_program, show_progress
from focal_jax.errors import InputError


def train_one(config: Path, workdir: Path) -> None:
  """Trains with a config that a sweep wrote into its `configs/`."""
  from focal_jax.training.loop import train_and_evaluate

  train_and_evaluate(ConfigDict(_tuples(json.loads(config.read_text()))), workdir)


def _tuples(value: Any) -> Any:
  """Converts lists to tuples: JSON has only lists, configs only tuples."""
  if isinstance(value, dict):
    return {name: _tuples(one) for name, one in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def main(argv: list[str]) -> None:
  if len(argv) != 3:
    raise InputError(f'found arguments {argv[1:]}, expected the file of a config and the folder of its run')
  show_progress()
  train_one(*map(Path, argv[1:]))


if __name__ == '__main__':
  run_program(main, 'focal_jax.sweeps')
