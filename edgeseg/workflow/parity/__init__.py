"""The parity ladder: rung by rung on the same frames, and the operation to blame where one falls off."""
