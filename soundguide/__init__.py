"""SoundGuide edits images with sound.

One legend of shapes, with the same meaning everywhere in the package:

====== ==========================================================
``B``  batch (one entry per edit)
``L``  ``num_ws``, the layers of a W+ code
``D``  ``w_dim``, the width of one layer's code
``E``  ``embed_dim``, the joint embedding space of image, text and sound
``T``  audio samples
``M``  mel bands
``F``  spectrogram frames
``H W`` image rows and columns
====== ==========================================================

Importing this package loads neither torch nor ray.
"""

__version__ = "0.1.0"
