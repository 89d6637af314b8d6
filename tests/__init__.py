"""The tests of Birdhouse, one package a room."""
