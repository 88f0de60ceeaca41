"""LLaVA-Bench. `llava_bench_rules` holds the plain functions; only `llava_bench` imports `evaluate`."""
