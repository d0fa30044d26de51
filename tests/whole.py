"""A method on all images of a category, as a run ends it."""

from zsadbench.methods import Batch, Method, Prediction
from zsadbench.running import contract


def predict(method: Method, batch: Batch) -> Prediction:
    """Return the final scores and maps of a batch that is the whole category."""
    scores, maps = contract.predict(method, batch)
    if not contract.waits(method):
        return Prediction(scores, maps)
    final = contract.finalise(method, scores, batch.paths)
    return Prediction(final.scores, final.scaled(maps))
