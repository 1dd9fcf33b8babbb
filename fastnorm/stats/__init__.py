"""Statistics: moments, extrema, and the mergeable state of a stream."""
