"""MMBench. `mmbench_rules` holds the plain functions; only `mmbench` imports `evaluate`."""
