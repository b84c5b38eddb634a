"""Temperature, clocks, throttling, power and memory while something is measured; what is not there says why, and is never 0."""
