"""One file per surface, each exporting its routes. `http` holds what they share; none knows the catalog."""
