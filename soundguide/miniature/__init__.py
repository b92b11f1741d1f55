"""The miniature: a whole small world of pictures and sounds, with models trained on it, that fits in the package."""
