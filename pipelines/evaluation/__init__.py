"""Benchmark, report, stability suite, and distribution over a cluster."""
