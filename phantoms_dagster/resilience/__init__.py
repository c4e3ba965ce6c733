"""How calls to other people's services are paced and survived: admission, breakers, retry decisions, the guarded transport."""
