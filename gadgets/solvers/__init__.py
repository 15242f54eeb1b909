"""From the name of a method to images."""
