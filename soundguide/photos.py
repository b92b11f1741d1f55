"""Photos as a generator takes them: upright, of the shape of its pictures, and aligned as its faces are."""

from __future__ import annotations

from typing import Literal

import numpy as np

from soundguide.face_alignment import align_face
from soundguide.face_detector import kept_detector
from soundguide.images import ImageLimits, Pixels, fit, open_upright
from soundguide.model_facts import ModelFacts
from soundguide.storage import Storage

NO_FACE_TO_ALIGN = (
    "no face was found in the photo, so it is not aligned as this generator's pictures are: its middle was taken"
)
NO_DETECTOR = (
    "this generator draws aligned faces, and no face detector is there to align the photo: its middle was taken. "
    "Configure an identity encoder that has a detector"
)


def read_photo(
    data: bytes, facts: ModelFacts, limits: ImageLimits, storage: Storage, *, align: Literal["auto", "never"]
) -> tuple[Pixels, str]:
    """Return a photo ``[height, width, 3]`` as the generator's pictures lie, and why it is not aligned where it should.

    It is aligned where the generator's domain asks for it and the identity encoder has a face detector, which
    ``storage`` reaches; otherwise, and where no face is found, its middle is taken. Raises `InvalidImage`, and what
    `kept_detector` raises.
    """
    photo, note = open_upright(data, limits), ""
    if align == "auto" and facts.aligns_photos:
        detector = kept_detector(facts.face_detector, dict(facts.digests)["detector"], storage)
        square = align_face(photo, detector, side=facts.resolution)
        if square is not None:
            top, bottom, left, right = facts.domain.visible(facts.resolution)
            return np.ascontiguousarray(square[top:bottom, left:right]), ""
        note = NO_FACE_TO_ALIGN
    elif align == "auto" and facts.domain.alignment == "ffhq":
        note = NO_DETECTOR
    return fit(photo, height=facts.height, width=facts.width), note
