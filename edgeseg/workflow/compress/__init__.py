"""Smaller and faster: pruning to a budget, the rescue ladder of int8, fine-tuning for it, fp16."""
