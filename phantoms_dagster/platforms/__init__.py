"""Where videos are posted: one folder for each platform, with its rules, its adapters and its settings."""
