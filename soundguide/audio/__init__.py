"""Sound: decoding, the log-mel front end, and windows over long recordings."""
