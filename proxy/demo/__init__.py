"""A small shop of three services to watch being traced: what they are, how they run, and the traffic they get."""
