"""GQA. `gqa_rules` holds the plain functions; only `gqa` imports `evaluate`."""
