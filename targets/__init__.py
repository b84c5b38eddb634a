"""What runs on a device: runtimes, boards, measuring, verifying, predicting. Python 3.10, no torch, no SDK until one is opened."""
