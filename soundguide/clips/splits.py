"""Which clips train, validate and test: by recording, so that no recording is on two sides."""

from collections.abc import Sequence

from soundguide.clips.tables import stable_hash
from soundguide.errors import InvalidManifest

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)

_NAMES = {
    "": "",
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}
_NUM_SHOWN = 5


def assign_splits(sources: Sequence[str], given: Sequence[str], *, share: float, where: str) -> list[str]:
    """Return the split of each clip, from its recording and what the data gives (``""``: nothing).

    Where a split is given it stays. A recording without one goes to validation with the chance `share`, by a hash of
    its name, or else to training. Data that gives no validation clips at all gives up the same share of its training
    recordings. `where` names the data in messages.

    Raises:
        InvalidManifest: a split has an unknown name, or a recording lies in several.
    """
    unknown = next((split for split in given if split.strip().lower() not in _NAMES), None)
    if unknown is not None:
        raise InvalidManifest(
            f"{where} gives the split {unknown!r}; known are {', '.join(filter(None, _NAMES))}, and an empty cell to "
            "have it chosen. Rename it"
        )
    named = [_NAMES[split.strip().lower()] for split in given]
    given_by_source: dict[str, str] = {}
    torn: dict[str, set[str]] = {}
    for source, split in zip(sources, named, strict=True):
        if split and given_by_source.setdefault(source, split) != split:
            torn.setdefault(source, {given_by_source[source]}).add(split)
    if torn:
        shown = "; ".join(f"{source!r} in {' and '.join(sorted(splits))}" for source, splits in list(torn.items())[:5])
        more = f" and {len(torn) - _NUM_SHOWN} more" if len(torn) > _NUM_SHOWN else ""
        raise InvalidManifest(
            f"{where} has recordings in several splits, which would be tested on what they trained: {shown}{more}. "
            "Give each recording (source_id) one split"
        )
    open_to_choice = ("",) if VALIDATION in named else ("", TRAIN)
    chosen: dict[str, str] = {}
    for source in dict.fromkeys(sources):
        split = given_by_source.get(source, "")
        if split in open_to_choice:
            split = VALIDATION if stable_hash(source) < share * 2**64 else TRAIN
        chosen[source] = split
    return [chosen[source] for source in sources]
