"""What is registered by name: each platform's rules, and what other packages bring. It imports no other room."""
