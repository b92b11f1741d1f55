"""The vocabulary of the face world: the six expressions that can be heard and seen."""

# The order is part of the contract: indices into LABELS are stored with weights and scores.
LABELS: tuple[str, ...] = ("giggling", "sobbing", "coughing", "sneezing", "screaming", "yawning")
