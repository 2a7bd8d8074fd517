# Nothing here has types of its own: compiled for its calls.
