"""node.toml: what one node needs to know before it can read the shared configuration. Restart to change it."""
