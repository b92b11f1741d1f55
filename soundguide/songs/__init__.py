"""Songs: long sounds, heard once in segments, whose embeddings then guide any number of edits."""
