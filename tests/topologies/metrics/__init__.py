"""Each metric against numbers worked out by hand, and against slower ways to the same number."""
