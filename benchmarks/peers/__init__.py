"""The proxies that are measured, each started alike from a configuration in `config/`."""
