"""What is measured, and what it means: CPU time, spans, samples, statistics."""
