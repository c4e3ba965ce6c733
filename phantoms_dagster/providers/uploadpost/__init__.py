"""Upload-Post, a gateway: it publishes for us with apps of its own, which the platforms have audited."""
