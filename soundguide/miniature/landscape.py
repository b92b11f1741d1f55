"""The miniature's first world, landscapes with weather and music, as its trainings and its report need it."""

from soundguide.miniature.captions import VOCABULARY, truth
from soundguide.miniature.clips import make_clip, scene_of
from soundguide.miniature.domain import Domain
from soundguide.miniature.scenes import CONTINUOUS, LATENTS, render, spoken_of, visible_factors
from soundguide.miniature.sounds import synthesise
from soundguide.models.manifest import MINIATURE

LANDSCAPE = Domain(
    name=MINIATURE,
    continuous=CONTINUOUS,
    latents=LATENTS,
    vocabulary=VOCABULARY,
    render=render,
    visible=visible_factors,
    truth=truth,
    picture_of=scene_of,
    make_clip=make_clip,
    synthesise=synthesise,
    spoken_of=spoken_of,
)
