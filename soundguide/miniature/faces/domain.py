"""The miniature's second world, faces with voices, as its trainings and its report need it."""

from soundguide.miniature.domain import Domain
from soundguide.miniature.faces.captions import VOCABULARY, truth
from soundguide.miniature.faces.clips import around, face_of, make_clip
from soundguide.miniature.faces.faces import CONTINUOUS, LATENTS, render, spoken_of, visible_factors
from soundguide.miniature.faces.voices import synthesise
from soundguide.models.manifest import MINIATURE_FACES

FACES = Domain(
    name=MINIATURE_FACES,
    continuous=CONTINUOUS,
    latents=LATENTS,
    vocabulary=VOCABULARY,
    render=render,
    visible=visible_factors,
    truth=truth,
    picture_of=face_of,
    make_clip=make_clip,
    synthesise=synthesise,
    spoken_of=spoken_of,
    around=around,
)
