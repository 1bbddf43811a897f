"""What every part of Tidegate stands on; knows no feature."""
