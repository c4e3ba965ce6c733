"""Access to Redis: running Lua scripts, and telling which of its errors mean that it is unavailable."""
