"""Training clips: from the lists of data sets and their files to tables of sounds, frames, texts and embeddings."""
