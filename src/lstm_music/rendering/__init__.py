"""Music and figures for ears and eyes: sound, scores, plots, HTML."""
