"""Below HTTP: what packets on the way to a backend tell about where a request waited."""
