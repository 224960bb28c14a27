"""What recipes and benchmarks share: records of measurements and published data sets."""
