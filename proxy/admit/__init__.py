"""Admission: is this request well-aimed, from whom does it come, and what may it claim."""
