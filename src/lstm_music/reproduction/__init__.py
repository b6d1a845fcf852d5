"""The paper's experiments: their options, what came of each, and the page about them."""
