# Written by `python -m regularizers.stub`.

from regularizers.adaptive import Adaptive as Adaptive
from regularizers.base import Regularizer as Regularizer
from regularizers.base import Requirements as Requirements
from regularizers.compose import Regularizers as Regularizers
from regularizers.compose import perturbed_embeddings as perturbed_embeddings
from regularizers.confidence_penalty import ConfidencePenalty as ConfidencePenalty
from regularizers.curricula import Constant as Constant
from regularizers.curricula import Cosine as Cosine
from regularizers.curricula import Curriculum as Curriculum
from regularizers.curricula import Linear as Linear
from regularizers.curricula import Sigmoid as Sigmoid
from regularizers.curricula import Step as Step
from regularizers.eaft import EAFT as EAFT
from regularizers.embedding_dropout import EmbeddingDropout as EmbeddingDropout
from regularizers.entrodrop import EntroDrop as EntroDrop
from regularizers.flooding import Flooding as Flooding
from regularizers.focal import Focal as Focal
from regularizers.generalized_cross_entropy import (
    GeneralizedCrossEntropy as GeneralizedCrossEntropy,
)
from regularizers.goldfish import Goldfish as Goldfish
from regularizers.high_entropy_exclusion import HighEntropyExclusion as HighEntropyExclusion
from regularizers.holdout_loss_selection import HoldoutLossSelection as HoldoutLossSelection
from regularizers.l2_sp import L2SP as L2SP
from regularizers.label_smoothing import LabelSmoothing as LabelSmoothing
from regularizers.loss_reweighting import LossReweighting as LossReweighting
from regularizers.mir import MIR as MIR
from regularizers.neftune import NEFTune as NEFTune
from regularizers.outputs import Outputs as Outputs
from regularizers.outputs import TokenLoss as TokenLoss
from regularizers.parameters import ParameterPart as ParameterPart
from regularizers.r_drop import RDrop as RDrop
from regularizers.random_token_dropout import RandomTokenDropout as RandomTokenDropout
from regularizers.reference_kl import ReferenceKL as ReferenceKL
from regularizers.rho1 import Rho1 as Rho1
from regularizers.token_replacement import TokenReplacement as TokenReplacement
from regularizers.training_step import TrainingStep as TrainingStep
from regularizers.training_step import Vocabulary as Vocabulary
from regularizers.wave_bound import WaveBound as WaveBound
from regularizers.z_loss import ZLoss as ZLoss
