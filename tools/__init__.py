"""Scripts that serve the project itself: setting up, checking the code, and making its data."""
