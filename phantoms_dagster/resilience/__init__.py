"""Calls to external services: admission to pools, circuit breakers, and the guarded HTTP transport that applies both."""
