"""Results for people (terminal, page, pictures) and for programs (JSON, bars, comparison)."""
