"""Films: one picture that lives through one song (Sec. 5.3).

A song is cut into segments (`segments`), each of which gives a key code by optimisation (`keys`, kept in `work`); a
smooth path joins them (`path`), the sound's loudness, onsets and beat move its strength (`reaction`), and the frames of
both (`motion`) are drawn and encoded with the sound (`render`, `encode`). `make_film` in `make` does all of it.
"""
