"""How good it is: likelihood, accuracy, the embedding, the music."""
