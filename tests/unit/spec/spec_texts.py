"""Small specs that are valid, to be broken one way at a time."""

from __future__ import annotations

PRETRAIN = """\
version: 1
kind: pretrain
name: glyphs32
data: {source: glyphs, resolution: 32}
model: {arch: dcgan}
train: {kimg: 8, batch_size: 64}
output: {artifact: glyphs32}
"""
FINETUNE = """\
version: 1
kind: finetune
name: digits
init_from: {artifact: "glyphs32:latest"}
data: {source: digits, resolution: 32}
transfer: {method: freeze, freeze_d: 2}
train: {kimg: 8, batch_size: 64}
output: {artifact: digits32}
"""
SWEEP = """\
kind: sweep
name: search
base: finetune.yaml
space:
  train.lr_g: {log_uniform: [1e-5, 1e-3]}
output: {artifact: digits32}
"""
EVALUATE = """\
kind: evaluate
name: eval
target: {artifact: "digits32:best"}
data: {source: digits, resolution: 32}
metrics: [kid]
"""
SPECS = {"pretrain.yaml": PRETRAIN, "finetune.yaml": FINETUNE, "sweep.yaml": SWEEP, "evaluate.yaml": EVALUATE}
