"""The use case of each stage, in a module that is named as its kind."""
