"""The sandbox: local stand-ins for all providers, with fault injection and a ledger of what they accepted.

It imports no other package of Phantoms.
"""
