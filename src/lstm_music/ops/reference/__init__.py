"""The reference: every op as a plain function of NumPy arrays, and the contract of it."""
