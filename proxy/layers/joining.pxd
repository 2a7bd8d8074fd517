# Compiled as it stands: what is called from here is.
