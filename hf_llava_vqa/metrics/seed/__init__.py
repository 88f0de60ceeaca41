"""SEED-Bench. `seed_rules` holds the plain functions; only `seed` imports `evaluate`."""
