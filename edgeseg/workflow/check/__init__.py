"""Bundles against torch, the labels and their own golden answers: on this machine and on the devices of their targets."""
