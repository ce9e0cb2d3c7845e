"""How good generated images are: feature extractors, FID, KID, precision and recall, each number with its protocol.

A metric is a function of two arrays of features and one line in `tlgan.registry.METRICS`; `measure` does the rest.
"""
