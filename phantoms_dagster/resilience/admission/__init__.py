"""Admission to pools: slots, rates and daily quotas, kept in Redis."""
