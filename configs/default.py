"""What every experiment starts from: the published recipe where it is known (Won and Jeon, ECCV 2022, section 4).

Not trained as it stands; the other files of this folder change what they need.
"""

import dataclasses

from ml_collections import ConfigDict

from focal_jax.simulate.stacks import SimulatorSettings


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.seed = 0  # of weights, data and augmentation

  config.model = model = ConfigDict()
  model.name = 'end_to_end'
  model.channels = 'RGB'  # order of the channels that the network sees: RGB or BGR
  model.padding = 'edge'  # what fills up frames to multiples of 32 px: edge or black
  model.motion_side_px = 0  # longer side to which frames are reduced before their motion is estimated; 0: not at all

  config.data = data = ConfigDict()
  # simulated; a data set built by tfds_ddff.build; folder:DIR with a folder of images and target.npy for each stack in
  # DIR/train and DIR/val; or several of them with weights, as in '0.7*ddff12 + 0.3*simulated'.
  data.source = 'simulated'
  # Photographs with depth that become stacks in the training step, beside procedural scenes; with the source
  # 'simulated' alone. nyu_depth, or folder:DIR in a layout of `focal_jax.data.rgbd`; empty: procedural scenes only.
  data.rgbd = ''
  data.rgbd_share = 0.5  # of the stacks, those made of photographs, drawn at random; 0 .. 1
  data.data_dir = ''  # where data sets were built
  data.num_threads = 16  # that read and crop; the batches do not depend on it
  # The rest is for all but simulated stacks alone, which are rendered as they shall be.
  data.crop_px = 224  # side of the random crop
  data.min_valid = 0.8  # least share of valid pixels in a crop
  data.num_frames = ()  # least and greatest number of frames of a batch, drawn at random; empty: all frames
  data.augment = True  # published photometric and geometric augmentation

  # Scenes, cameras and sensor, with every field of `focal_jax.simulate.stacks.SimulatorSettings`, where each has a
  # comment: config.simulator.height_px, .scene.thin, .sweep.blur_px, .sensor.shot_noise and so on.
  config.simulator = ConfigDict(dataclasses.asdict(SimulatorSettings(height_px=224, width_px=224, margin_px=24)))

  config.networks = 'both'  # both: end to end; depth: alone, on frames as they are; alignment: alone, from known motion
  config.init = init = ConfigDict()
  init.depth = ''  # a .npz of ours from which the depth network starts; empty: random
  init.alignment = ''  # likewise, the alignment network

  config.batch_size = 4  # stacks a step, over all devices
  config.steps = 100_000
  config.optimizer = optimizer = ConfigDict()
  optimizer.learning_rate = 1e-4  # not published; what others in the field use
  optimizer.b1 = 0.9
  optimizer.b2 = 0.99
  optimizer.warmup_steps = 0  # linear, from 0
  optimizer.schedule = 'constant'  # constant, or cosine to 0 at the last step

  config.loss = loss = ConfigDict()
  loss.pyramid_weights = (0.3, 0.5, 0.7, 1.0)  # of the squared errors of D1 .. D4
  loss.motion_weight = 0.05  # of the mean displacement error, px, where the motion is known; published: none

  config.log_every = 50  # steps
  config.checkpoint_every = 500  # steps
  config.keep_checkpoints = 2
  config.validation_every = 1000  # steps
  config.validation_batches = 8

  config.eval = evaluation = ConfigDict()
  evaluation.dataset = 'examples'  # examples (ships with the project), or the name of a built data set
  evaluation.split = 'val'
  evaluation.align = False  # DDFF-12 is refocused from light fields: aligned as it is
  evaluation.data_dir = ''  # where data sets were built
  return config
