"""TextVQA. `textvqa_rules` holds the plain functions; only `textvqa` imports `evaluate`."""
