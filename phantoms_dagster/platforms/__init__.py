"""The platforms on which videos are published: one package each, with its rules, adapters and settings."""
