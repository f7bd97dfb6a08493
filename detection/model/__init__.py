"""The detector and its losses: modules and pure functions, without I/O."""
