"""A spec with ten mistakes, for whoever measures how quickly they are found."""

MISTAKES = """\
version: 1
kind: finetune
name: Digits
init_from: {artifact: glyphs32}
data: {source: digts, resolution: 32, limit: -1}
transfer: {method: freez, freeze_d: 9}
train: {kimg: fast, batch_size: "64", lr_g: 0}
lr_d: 1
"""
