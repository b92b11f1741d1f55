"""The fixed vocabulary of the miniature world: what can be heard, and what its pictures show."""

EVENTS: tuple[str, ...] = (
    "raining",
    "thunderstorm",
    "wind noise",
    "fire crackling",
    "sea waves",
    "bird song",
    "crickets chirping at night",
    "fireworks exploding",
    "river flowing",
    "walking in snow",
    "city traffic",
    "train passing",
    "underwater bubbling",
    "church bells",
)
MUSIC_STYLES: tuple[str, ...] = (
    "funny music",
    "latin music",
    "techno music",
    "dark ambient music",
    "orchestral music",
)
# The order is part of the contract: indices into LABELS are stored with weights and scores.
LABELS: tuple[str, ...] = EVENTS + MUSIC_STYLES
