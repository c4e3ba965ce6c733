"""Who may call now: slots, rates and quotas of pools, kept in Redis."""
