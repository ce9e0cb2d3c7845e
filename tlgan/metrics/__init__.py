"""How good generated images are: feature extractors and metrics, each number with its protocol.

A metric is a function of arrays and one line in `tlgan.registry.METRICS`, which names its inputs. `materials` makes these,
by all ranks (`looking`), from `pictures`; `measure` does the rest.
"""
