"""Hard negatives for contrastive training, mined with a model and freed of false ones."""

from post_training.mining.command import main
from post_training.mining.mine import Mined, mine_negatives
from post_training.mining.settings import MiningSettings

__all__ = ["Mined", "MiningSettings", "main", "mine_negatives"]
