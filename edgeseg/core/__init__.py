"""What every other room leans on: standard library, numpy and Pillow only (Python 3.10 and newer)."""
