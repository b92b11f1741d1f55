"""How well a sound encoder tells sounds apart: zero-shot by the names of classes, and by a linear probe on folds."""
