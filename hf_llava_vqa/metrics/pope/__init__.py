"""POPE. `pope_rules` holds the plain functions; only `pope` imports `evaluate`."""
