"""The API server as the source of the table, and what the controller writes back to it."""
