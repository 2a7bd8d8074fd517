"""Which rule a request takes: the table, its lookup, its counters, and why (Ingress v1)."""
