"""What an operator sees: health, metrics, routes, recent traces, and the waterfalls in the terminal."""
