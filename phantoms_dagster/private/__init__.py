"""Private names of other people's libraries, one module a library, each with what does the same on public names."""
