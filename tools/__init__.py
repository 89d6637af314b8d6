"""Scripts that serve the project itself: setting up, checking the code, making the data that ships with it."""
