"""Tests and benchmarks. A package, so that `python -m tests.bench` finds this one and no other."""
