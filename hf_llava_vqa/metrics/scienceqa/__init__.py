"""ScienceQA. `scienceqa_rules` holds the plain functions; only `scienceqa` imports `evaluate`."""
