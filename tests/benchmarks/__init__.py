"""Benchmarks: ratios, each measured in one run. `make bench` runs them all."""
