# Compiled as it stands, for its calls into what is.
