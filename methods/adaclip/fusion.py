"""Hybrid semantic fusion of AdaCLIP: one vector for the anomalous patches of an image, found by k-means.

docs/methods/adaclip.md, §Semantic fusion. Every image is clustered alone, from one seed and with patches in raster
order, so that its result depends neither on its batch nor on a global random state nor on the order of nearly equal
scores. scikit-learn clusters, on the CPU: its draws are those of the published results, and 100 rows take it
milliseconds.

B images, l layers, L patches, J width; `patches` are unit vectors [B, l, L, J]. Differentiable in the members of the
clusters, not in who is a member.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zsadbench.components.similarity import unit

PATCHES_PER_CLUSTER = 5  # of the patches that are clustered (§Semantic fusion)


def most_abnormal(scores: Tensor, clusters: int) -> Tensor:
    """Return the indices of the patches [B, L] with the highest scores, five a cluster, in raster order: [B, n]."""
    count = min(scores.shape[1], PATCHES_PER_CLUSTER * clusters)
    return scores.topk(count, dim=1).indices.sort(dim=1).values


def cluster_mean(patches: Tensor, chosen: Tensor, clusters: int, seed: int) -> Tensor:
    """Return the unit mean of all cluster centres among the chosen patches [B, n]: [B, J].

    k-means sees the layers of a patch side by side; a centre is the mean over its members and their layers (the code's
    version).
    """
    layers = patches.gather(2, chosen[:, None, :, None].expand(-1, patches.shape[1], -1, patches.shape[3]))
    labels = cluster(layers.transpose(1, 2).flatten(2), clusters, seed)
    sizes = (labels[:, :, None] == labels[:, None, :]).sum(dim=2)  # of each member's cluster
    return _weighted_direction(layers.mean(dim=1), 1 / sizes)


def abnormal_cluster(patches: Tensor, abnormal: Tensor, clusters: int, seed: int) -> Tensor:
    """Return the unit centre of the most abnormal cluster of all patches: [B, J] (the paper's version).

    abnormal: [B, L] probabilities; a cluster's is the mean of its members'. k-means sees the mean over the layers.
    """
    means = patches.mean(dim=1)
    labels = cluster(means, clusters, seed)
    together = (labels[:, :, None] == labels[:, None, :]).to(abnormal.dtype)
    score = (together @ abnormal[:, :, None]).squeeze(2) / together.sum(dim=2)  # of each member's cluster
    best = labels.gather(1, score.argmax(dim=1, keepdim=True))
    return _weighted_direction(means, labels == best)


def cluster(rows: Tensor, clusters: int, seed: int) -> Tensor:
    """Return the k-means label of each row of each image: [B, n, D] -> [B, n], each image seeded alike."""
    from sklearn.cluster import KMeans  # here, because it is slow to import

    kmeans = KMeans(clusters, n_init=1, random_state=seed)
    labels = [torch.from_numpy(kmeans.fit_predict(image)).long() for image in rows.detach().float().cpu().numpy()]
    return torch.stack(labels).to(rows.device)


def _weighted_direction(rows: Tensor, weights: Tensor) -> Tensor:
    """Return the direction of the weighted sum of rows [B, n, J] with weights [B, n]: [B, J]."""
    return unit((weights.to(rows.dtype)[:, None] @ rows).squeeze(1))
