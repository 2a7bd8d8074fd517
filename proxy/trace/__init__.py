"""Traces: context, ids, sampling, span records, the names in spans, OTLP bytes and their export."""
