"""What every experiment starts from: the published recipe where it is known (Won and Jeon, ECCV 2022, section 4).

Not trained as it stands; the other files of this folder change what they need.
"""

import dataclasses

from ml_collections import ConfigDict

from focal_jax.simulate.stacks import SimulatorSettings

# Fields of `model` that make a depth network see frames as they are given.
AS_THEY_ARE = {'motion_side_px': 0, 'motion_passes': 1, 'resampling': 'linear', 'alignment': 'none'}


def get_config() -> ConfigDict:
  config = ConfigDict()
  config.seed = 0  # of weights, data and augmentation

  config.model = model = ConfigDict()
  # end_to_end; or, with other fields than these, a network of `configs/baselines`: defocusnet, aifdepthnet or dfv
  model.name = 'end_to_end'
  model.channels = 'RGB'  # order of the channels that the network sees: RGB or BGR
  model.padding = 'edge'  # what fills up frames to multiples of 32 px: edge or black
  model.motion_side_px = 0  # longer side to which frames are reduced before their motion is estimated; 0: not at all
  model.motion_passes = 1  # times that the motion is estimated, each from frames warped by what was found before
  # The depth network: published; curves, which learns more from little training; or refined, which starts from
  # classical depth from focus and has five depth maps.
  model.depth = 'published'
  model.stem_dilation = 2  # of the published depth network's first layer: 2 as published, or 1
  model.focus_measures = False  # whether the published depth network is given focus measures, too
  model.resampling = 'linear'  # of the frames that the depth network is given: linear as published, or lanczos
  # learned, as published; fitted, which sees zooms that metadata do not tell; metadata: field-of-view crop only; none:
  # frames as they are
  model.alignment = 'learned'
  model.detection = 'both'  # sharp region detection: both, plane (2-D block) only, attention only, or none
  model.downsampling = 'both'  # both, stride (strided convolution) only, or pooling only

  config.data = data = ConfigDict()
  # simulated; a data set built by tfds_ddff.build; folder:DIR with a folder of images and target.npy for each stack in
  # DIR/train and DIR/val; or several of them with weights, as in '0.7*ddff12 + 0.3*simulated'.
  data.source = 'simulated'
  # Photographs with depth that become stacks in the training step, beside procedural scenes; with the source
  # 'simulated' alone. nyu_depth, or folder:DIR in a layout of `focal_jax.data.rgbd`; empty: procedural scenes only.
  data.rgbd = ''
  data.rgbd_share = 0.5  # of the stacks, those made of photographs, drawn at random; 0 .. 1
  # Photographs as textures of procedural surfaces, folder:DIR with pictures in it, also in folders of folders; with the
  # source 'simulated' alone. `python -m tfds_ddff.textures` collects free ones. Empty: procedural textures only.
  data.textures = ''
  data.textures_share = 0.5  # of the surfaces, those that carry a part of a photograph, drawn at random; 0 .. 1
  # Numbers of frames of simulated stacks, of which each batch draws one; a number given twice is drawn twice as often.
  # The training step is compiled for each. With the source 'simulated' alone; empty: simulator.num_frames.
  data.simulated_frames = ()
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

  config.batch_size = 4  # stacks a step, over all devices of all processes
  config.accumulate = 1  # parts that a device takes its share of the batch in, one after the other, to save memory
  config.steps = 100_000
  config.parallel = 'pmap'  # how the step runs on the devices: pmap or shard_map
  config.compute_dtype = 'float32'  # of the networks' activations: float32 or bfloat16; parameters are float32
  config.remat = False  # compute each block's activations anew in the backward pass: slower, in less memory
  config.ema_decay = 0.0  # of a moving average of the weights, which is then validated and written; 0: none

  config.optimizer = optimizer = ConfigDict()
  optimizer.learning_rate = 1e-4  # not published; what others in the field use
  optimizer.b1 = 0.9
  optimizer.b2 = 0.99
  optimizer.warmup_steps = 0  # linear, from 0
  optimizer.schedule = 'constant'  # constant, or cosine to 0 at the last step
  optimizer.clip_norm = 0.0  # gradients of a greater norm are scaled down to it; 0: none are

  config.loss = loss = ConfigDict()
  loss.unit = 'focus_range'  # of focus and depth in training: 0 .. 1 over each stack's focus range, or as given
  loss.pyramid_weights = (0.3, 0.5, 0.7, 1.0)  # of the losses of the model's depth maps, coarse to fine (D1 .. D4)
  loss.within_focus = False  # whether only pixels count whose depth is within the range of their stack's focus
  loss.balance = 0.0  # above 0: each stack counts 1 / (its mean squared error + balance) times; 0: all alike
  loss.penalty = 'squared'  # of a pixel's error, in units of the focus range: squared, absolute, huber or charbonnier
  loss.penalty_scale = 0.05  # where huber and charbonnier turn from squared to absolute
  loss.gradient_weight = 0.0  # of the error of the depth's slopes; published: none
  loss.gradient_scales = 4  # of them: slopes between pixels 1, 2, 4, 8 apart
  loss.motion_weight = 0.05  # of the mean displacement error, px, where the motion is known; published: none
  loss.defocus_weight = 0.0  # of the squared error of frames' defocus (DefocusNet)
  loss.all_in_focus_weight = 0.0  # of the absolute error of the all-in-focus image (AiFDepthNet)
  loss.smoothness_weight = 0.0  # of the depth's changes where the all-in-focus image has none

  config.max_skipped = 20  # steps in a row with a loss or gradient that is not finite, after which the run stops
  config.log_every = 50  # steps
  config.checkpoint_every = 500  # steps
  config.keep_checkpoints = 2  # at least 2, so that there is one to fall back to
  config.validation_every = 1000  # steps
  config.validation_stacks = 32
  config.validation_split = 'val'  # of a data set
  config.validation_seed = 0  # of simulated stacks: runs of any seed are measured on the same
  config.validation_textures = ''  # as data.textures, for simulated stacks: photographs that training does not see
  config.best_metric = 'mse'  # of the validation: the weights that had the least of it are kept in best.npz

  config.eval = evaluation = ConfigDict()
  # examples (ships with the project), the name of a built data set, folder:DIR, or simulated, by `config.simulator`, or
  # with a camera's own sweep, as in simulated/pixel_6.
  evaluation.dataset = 'examples'
  evaluation.split = 'val'
  # How frames are aligned first: measured, network, metadata or off. DDFF-12 is refocused from light fields: aligned.
  evaluation.align = 'off'
  evaluation.data_dir = ''  # where data sets were built
  evaluation.num_stacks = 0  # the first so many of the split; 0: all
  # Beside the network: constant (the mean target of the split train), classical, classical:laplacian and so on.
  evaluation.baselines = ('constant', 'classical')
  evaluation.pictures = 5  # stacks of least, and of greatest, error that are drawn
  return config


def with_variant(config: ConfigDict, variant: str, file: str) -> ConfigDict:
  """The recipe of a file as it is, or its variant 'smoke'; ValueError naming the file for another one."""
  if variant == 'smoke':
    smoke(config)
  elif variant:
    raise ValueError(f"unknown variant '{variant}' of {file}, expected 'smoke' or nothing")
  return config


def smoke(config: ConfigDict) -> ConfigDict:
  """Shrinks a recipe to seconds a step: a few steps on few and small stacks, with all that a run does in them."""
  config.simulator.update(num_frames=3, height_px=32, width_px=32, num_surfaces=4, margin_px=8)
  config.data.update(crop_px=32, num_frames=(3, 3))
  config.update(batch_size=2, steps=6, log_every=2, checkpoint_every=3, validation_every=6, validation_stacks=2)
  return config
