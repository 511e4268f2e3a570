"""The commented configuration that ``ssmred prune --example`` prints."""

from __future__ import annotations

__all__ = ["EXAMPLE"]

EXAMPLE = """\
# Remove operators from a bundled network:  ssmred prune this-file.toml
# Files are looked for from this file's folder. Keys that are left out have the values shown
# behind "default".

[model]                       # exactly one of zoo, folder, factory, recipe
zoo = "listops-s4d"           # a bundled network, see `ssmred zoo`
# folder = "network"          # what ssmred.networks.save_network wrote
# factory = "my_nets:classifier"    # a function without arguments; weights if it makes none
# weights = "trained.safetensors"   # for a factory or a recipe
# recipe = { inputs = 1, outputs = 10, layer = "s4d", channels = 64, layers = 4 }   # of DeepSSM

[task]
name = "listops"              # what ssmred.tasks.load knows; all further keys are its options
training = 2000               # of this task: expressions to train on,
held_out = 1000               #   to choose and to certify with,
test = 2000                   #   and to judge the networks on at the very end

[prune]
rates = [0.3, 0.5, 0.7]       # shares of all operators, rising; default 0.1, 0.3, 0.5, 0.7, 0.9
# targets = { latency = [0.8, 0.6] }   # instead of rates: latency or bytes, as ratios to the parent
selection = "calibrated"      # default; or random, h2, gradient
replacement = "static_gain"   # default; or identity, zero, low_order
# order = 2                   # default; for low_order: real states that stand for an operator
allocation = "global"         # default; or exponential, uniform, latency
repair = true                 # default; fit the mixings behind the filters, without training
silence = 0.0                 # default; share of the gains that go too, with their mixings' columns
step = 0.05                   # default; share that goes before the rest is judged again, or "all"
seeds = [0]                   # default; one candidate each, the best on the validation part goes on
calibration = 256             # default; training sequences that the selection looks at
seed = 0                      # default; of the calibration's draw
repeats = 30                  # default; timed blocks of every latency
threads = 1                   # default; threads that latency is measured with

[training]                    # fine-tuning after each step; epochs = 0 for none
epochs = 1                    # default 3
rate = 1e-3                   # default 1e-4; of the weights, SSM parameters have their own cap
batch = 64                    # default
samples = 512                 # default all; training sequences per epoch, a fresh draw each
# weight_decay = 0.01         # default
# warm_up = 0.1               # default; share of the steps, then cosine to 0
# clip = 1.0                  # default; largest norm of a gradient
# patience = 3                # default; epochs without a better validation score
# smoothing = 0.0             # default; of the labels
# distillation = 0.0          # default; share of the loss that is learnt from the parent
# temperature = 2.0           # default; of the outputs that are compared in distillation
# keep_start = true           # default; whether the network may stay as it was before epoch 1
# judge = "score"             # default; or loss: what the best epoch has most, or least, of
# accelerator = "cpu"         # default; with devices, strategy and precision as Lightning Fabric's
"""
