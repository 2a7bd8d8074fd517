# Compiled as it stands: no types are needed for half of its time.
