"""Tokenizers: a piece becomes words or note vectors, and words become a piece again."""
