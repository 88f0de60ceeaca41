"""MM-Vet. `mm_vet_rules` holds the plain functions; only `mm_vet` imports `evaluate`."""
