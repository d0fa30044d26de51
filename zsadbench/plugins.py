"""The old place of `zsadbench.support.plugins`, for scripts of version 0.1; it goes with version 0.3."""

import warnings

from zsadbench.support.plugins import add_folder as add_folder

warnings.warn(
    "zsadbench.plugins has moved and goes with version 0.3: import it from zsadbench.support.",
    FutureWarning,
    stacklevel=2,
)
