"""What the benchmarks share: building, starting what takes part, and counting."""
