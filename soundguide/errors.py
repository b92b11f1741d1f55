"""The errors that users meet, as a tree.

::

    SoundGuideError
    ├── InvalidEdit            one row, request or file is wrong; the others go on
    │   ├── InvalidAudio       the sound cannot be read, is too short, silent or not finite
    │   ├── InvalidImage       the picture cannot be read or is outside the limits
    │   ├── InvalidLatent      the latent file does not fit the generator
    │   ├── InvalidSettings    a setting is outside its range
    │   ├── SourceNotFound     a URI names nothing, or nothing that may be read
    │   ├── NonFiniteEdit      the optimisation of this edit left the finite numbers
    │   └── Quarantined        a process died more than once at this row
    └── InvalidProgram         the whole program cannot go on; raised before work is lost
        ├── InvalidConfig      a config file or flag is wrong
        ├── InvalidManifest    the manifest cannot be read, lacks a column or repeats an id
        ├── OutputConflict     the output folder belongs to another run, or cannot be written
        ├── StoreUnavailable   the object store gives no answer
        ├── Stalled            nothing has moved in a job for longer than it may take
        └── InvalidCheckpoint  weights do not fit the architecture that their config names

Every message says what is wrong, what was got, and the remedy.
"""


class SoundGuideError(ValueError):
    """The root of all errors that this package raises for its users."""


class InvalidEdit(SoundGuideError):
    """One edit cannot be done. Jobs turn it into a row with ``status="error"``; the service answers 4xx."""


class InvalidAudio(InvalidEdit):
    """The sound cannot be decoded, or is empty, silent, too short, too long or not finite."""


class InvalidImage(InvalidEdit):
    """The picture cannot be decoded, or is outside the limits on pixels or bytes."""


class InvalidLatent(InvalidEdit):
    """The latent file cannot be read or its shape does not fit the generator."""


class InvalidSettings(InvalidEdit):
    """A setting of one edit is unknown, outside its range, or contradicts another."""


class SourceNotFound(InvalidEdit):
    """A source URI names nothing that exists, or uses a scheme that is not allowed."""


class NonFiniteEdit(InvalidEdit):
    """The loss or the latent code of this edit became infinite or not a number."""


class Quarantined(InvalidEdit):
    """The process died each time that it worked on this row. Jobs give the row ``status="quarantined"``."""


class InvalidProgram(SoundGuideError):
    """The program cannot start or go on; it stops before work is lost."""


class InvalidConfig(InvalidProgram):
    """A config file, flag or environment variable is wrong."""


class InvalidManifest(InvalidProgram):
    """The manifest cannot be read, lacks a required column, or repeats an id."""


class OutputConflict(InvalidProgram):
    """The output belongs to another run or another resolved config, or cannot be written."""


class StoreUnavailable(InvalidProgram):
    """The object store gives no answer, or errors of its own, after all attempts."""


class Stalled(InvalidProgram):
    """Nothing has moved in a job for `pool.stall_seconds`: the cluster lacks what it asks for, or it hangs."""


class InvalidCheckpoint(InvalidProgram):
    """A checkpoint is missing, damaged, or does not fit the architecture that its config names."""
