"""What scripts/benchmark.py measures: one file a benchmark, with `PACKAGES`, `add_arguments` and `measure`."""
