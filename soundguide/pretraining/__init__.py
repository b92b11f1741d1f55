"""Pretraining of the sound encoder into CLIP's space (Lee et al., Sec. 3.1), without Ray: what one worker computes."""
