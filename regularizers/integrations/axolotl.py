"""A plugin of Axolotl that trains under regularizers.

.. code-block:: yaml

    plugins:
      - regularizers.integrations.axolotl.RegularizersPlugin
    regularizers:
      - class_path: EntroDrop
        init_args:
          curriculum: {class_path: Sigmoid, init_args: {max: 0.4}}
"""

from typing import Any

from regularizers.integrations.trainer import RegularizedTrainer

try:
    from axolotl.integrations.base import BasePlugin
    from pydantic import BaseModel
except ImportError:  # the documentation is built without Axolotl
    BasePlugin = BaseModel = object  # type: ignore[misc, assignment]


class RegularizersArgs(BaseModel):
    """What the plugin adds to the config of Axolotl.

    Args:
        regularizers: ``class_path`` and ``init_args`` of each regularizer.
    """

    regularizers: list[dict[str, Any]] = []  # noqa: RUF012


class RegularizersPlugin(BasePlugin):  # type: ignore[misc]
    """Makes the Trainer of Axolotl a regularized one."""

    def get_input_args(self) -> str:
        """Return the class of the added settings."""
        return "regularizers.integrations.axolotl.RegularizersArgs"

    def get_trainer_cls(self, cfg: Any) -> type[Any]:
        """Return Axolotl's Trainer for supervised fine-tuning, with regularizers.

        Raises:
            ValueError: If the config trains by preferences or rewards.
        """
        from axolotl.core.trainers.base import AxolotlTrainer

        others = [name for name in ("rl", "reward_model", "process_reward_model") if cfg.get(name)]
        if others:
            raise ValueError(
                f"regularizers: expected supervised fine-tuning, got {', '.join(others)}: remove "
                "the plugin or the setting"
            )
        return type("RegularizedAxolotlTrainer", (RegularizedTrainer, AxolotlTrainer), {})

    def post_trainer_create(self, cfg: Any, trainer: RegularizedTrainer) -> None:
        """Give the regularizers of the config to the Trainer."""
        trainer.regularize(cfg.get("regularizers") or ())
