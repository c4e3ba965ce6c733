"""The `phantoms` command line: one module per group of commands. `stack` runs the processes behind `phantoms up`."""
