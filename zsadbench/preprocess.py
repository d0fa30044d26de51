"""The old place of `zsadbench.data.images`, for plugins that were written for version 0.1; it goes with version 0.3."""

import warnings

from zsadbench.data.images import Preprocess as Preprocess
from zsadbench.data.images import decode_image as decode_image

warnings.warn(
    "zsadbench.preprocess has moved and goes with version 0.3: import Preprocess from zsadbench, the rest from "
    "zsadbench.data.images.",
    FutureWarning,
    stacklevel=2,
)
