"""Loopback stand-ins of every provider, with fault injection and a ledger of what they accepted. Imports no other room."""
