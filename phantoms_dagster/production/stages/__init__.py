"""The use case of each stage, in a module named after the stage's kind."""
