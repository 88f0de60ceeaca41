"""MME. `mme_rules` holds the plain functions; only `mme` imports `evaluate`."""
