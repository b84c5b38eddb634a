"""Measuring a bundle: in a process of its own, warmed up until steady, with everything about the machine beside the numbers."""
