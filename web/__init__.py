"""The web UI, the JSON API under /api/v1, server-sent events and /metrics: thin handlers over lbnode.control."""
