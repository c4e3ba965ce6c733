"""How Redis is asked: Lua scripts, and what its refusals mean."""
