"""Which endpoint of a backend serves a request: policies, and the passive health that they go by."""
