"""Dual-Anchor's operators in float64: merging, assignment, update, refiner, anchor losses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from zsadbench.methods.dual_anchor.anchors import group_loss, orthogonality_loss, refine
from zsadbench.methods.dual_anchor.merging import Assignment, Update, merge_choice, merge_half

from zsadbench.components.similarity import unit

if TYPE_CHECKING:
    from produce import Fixture
    from torch import Tensor

# The fixture's names of parameters -> ours.
ASSIGN = {
    "norm_patch.weight": "ln_f_weight", "norm_patch.bias": "ln_f_bias",
    "norm_group.weight": "ln_g_weight", "norm_group.bias": "ln_g_bias",
    "q.weight": "W_q", "k.weight": "W_k", "v.weight": "W_v", "out.weight": "W_o", "out.bias": "out_bias",
}  # fmt: skip
UPDATE = {"v.weight": "W_vu", "out.weight": "W_ou", "out.bias": "update_bias"}


def produce(fixture: Fixture) -> dict[str, Tensor]:
    """Return every output of the fixture."""
    fixture.expect(assignment_scale="1/sqrt(C)", assign_eps=1, layernorm_eps=1e-5)
    fixture.describes("merge", "refiner", "G_N", "G_A")
    given, options = fixture.inputs, fixture.options
    outputs = {}
    for size in options["group_sizes"]:
        groups = given[f"merge_in_{size}"]
        outputs |= {f"merge_out_{size}": merge_half(groups), f"merge_choice_{size}": merge_choice(groups)}

    width = given["features"].shape[2]
    soft = filled(Assignment(width, options["tau"], hard=False), ASSIGN, given)
    hard = filled(Assignment(width, options["tau"], hard=True), ASSIGN, given)
    update = filled(Update(width, residual=True), UPDATE, given)
    assignment, groups = soft(given["features"], given["group_tokens"])
    outputs |= {
        "assign": assignment,
        "assign_hard": hard(given["features"], given["group_tokens"])[0],
        "group_updated": groups,
        "feature_assigned": update(given["features"], groups, assignment),
    }

    anchors, token = groups[:, :2], given["cls_token"]
    linear = filled(nn.Linear(2, width), {"weight": "refiner_weight", "bias": "refiner_bias"}, given)
    for form in ("add", "mul"):
        for norm in ("l2", "none"):
            outputs[f"refined_{form}_{norm}"] = refine(token, anchors, linear, norm, form)
    return outputs | {
        "refiner_cosines": (unit(token)[:, None] * unit(anchors)).sum(dim=2),
        "loss_ortho": orthogonality_loss(anchors)[None],
        "loss_group": group_loss(anchors, given["features"], given["mask_fraction"].flatten(1))[None],
        "map_mean": given["stage_probs"][..., 1].mean(dim=1),
    }


def filled(module: nn.Module, names: dict[str, str], given: dict[str, Tensor]) -> nn.Module:
    """Give a module the fixture's parameters, in their type."""
    module.load_state_dict({ours: given[theirs] for ours, theirs in names.items()}, assign=True)
    return module.requires_grad_(False)
