"""Complete configs for `fit` at points of a space."""

from collections.abc import Mapping
from typing import Any

from lit_entrodrop.commands.compare.planning.planned_run import resolve
from lit_entrodrop.commands.compare.planning.strengths import with_strength
from lit_entrodrop.commands.tune.space.sample import Sample
from lit_entrodrop.commands.tune.space.space import Space


def sampled_config(config: Mapping[str, Any], space: Space, sample: Sample) -> dict[str, Any]:
    """Return a complete config with the values of a sample.

    Raises:
        ValueError: If a setting does not exist, or `fit` rejects a value.
    """
    changed = dict(config)
    for group, (name, strengths) in sample.alternatives.items():
        place = f"{group}.{name}"
        changed = resolve([changed, *space.groups[group][name].configs], place)
        changed = with_strength(changed, strengths, place)
    for values in (sample.plain, sample.settings):
        changed = with_strength(changed, values, "space")
    return resolve([changed], "space")
