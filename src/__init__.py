"""What we do: read, design, collapse, sample, estimate, compare, draw."""
