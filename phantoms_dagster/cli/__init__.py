"""The `phantoms` command: one file per group of commands, `stack` for what runs behind them."""
